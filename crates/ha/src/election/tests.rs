use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use super::{Answer, Candidate, InvalidSettings, Lease, Next, Request, Settings};
use crate::types::{Instant, Version};

fn settings(takeover: u64, renew_deadline: u64, retry: u64) -> Settings {
    let ticks = Duration::from_nanos;
    Settings { takeover: ticks(takeover), renew_deadline: ticks(renew_deadline), retry: ticks(retry) }
}

#[test]
fn times_that_do_not_fit_are_refused() {
    let seconds = Duration::from_secs;
    let new = |takeover, deadline, retry, call| {
        Settings::new(seconds(takeover), seconds(deadline), seconds(retry), seconds(call))
    };
    assert_eq!(new(15, 10, 2, 2), Ok(Settings::DEFAULT));
    assert_eq!(new(12, 10, 2, 2), Err(InvalidSettings::TakeoverTooShort));
    assert_eq!(new(30, 8, 2, 2), Err(InvalidSettings::DeadlineTooShort));
}

/// The Lease as the API server keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Register {
    lease: Option<Lease>,
    writes: u64,
}

impl Register {
    fn land(&mut self, me: &str, request: &Request) -> Answer {
        let written = match (request, &self.lease) {
            (Request::Read, Some(lease)) => return Answer::Found(lease.clone()),
            (Request::Read | Request::Write { .. }, None) => return Answer::Missing,
            (Request::Create, Some(_)) => return Answer::Lost,
            (Request::Create, None) => Lease { holder: Some(me.into()), version: self.next(), term: 1 },
            (Request::Write { on, .. }, Some(lease)) if *on != lease.version => return Answer::Lost,
            (Request::Write { holder, term, .. }, Some(_)) => {
                Lease { holder: holder.clone(), version: self.next(), term: *term }
            }
        };
        self.writes += 1;
        self.lease = Some(written.clone());
        Answer::Written(written.version)
    }

    fn next(&self) -> Version {
        Version((self.writes + 1).to_string())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Call {
    None,
    Sent(Request, Instant),
    Landed(Request, Instant, Answer),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    now: u64,
    register: Register,
    candidates: Vec<Candidate>,
    calls: Vec<Call>,
    /// Requests whose sender gave up and which may still land.
    late: Vec<Option<Request>>,
    deleted: bool,
}

/// What may happen in a walk, besides requests, landings and time.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    time: u64,
    writes: u64,
    /// Requests whose sender gave up land later, at any time.
    late: bool,
    /// Somebody deletes the Lease, once.
    deletion: bool,
    /// Holders release.
    release: bool,
}

const CALM: Bounds = Bounds { time: 4, writes: 2, late: false, deletion: false, release: false };

impl World {
    fn new(settings: Settings) -> Self {
        let names = ["a", "b"];
        Self {
            now: 0,
            register: Register {
                lease: Some(Lease { holder: None, version: Version("0".into()), term: 0 }),
                writes: 0,
            },
            candidates: names.iter().map(|name| Candidate::new(*name, settings)).collect(),
            calls: names.iter().map(|_| Call::None).collect(),
            late: names.iter().map(|_| None).collect(),
            deleted: false,
        }
    }

    fn leaders(&self) -> usize {
        self.candidates.iter().filter(|candidate| candidate.leads(Instant(self.now))).count()
    }

    /// The candidates are alike, so it is no loss that the first write is always the first one's.
    fn may_write(&self, candidate: usize, bounds: Bounds) -> bool {
        self.register.writes < bounds.writes && (self.register.writes > 0 || candidate == 0)
    }

    /// Every world that can come next.
    fn next(&self, bounds: Bounds) -> Vec<Self> {
        let mut worlds = Vec::new();
        let mut push = |change: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            change(&mut world);
            worlds.push(world);
        };
        if self.now < bounds.time {
            push(&|world| world.now += 1);
        }
        if bounds.deletion && !self.deleted && self.leaders() > 0 {
            push(&|world| {
                world.deleted = true;
                world.register.lease = None;
            });
        }
        for i in 0..self.candidates.len() {
            let now = Instant(self.now);
            let name = ["a", "b"][i];
            if self.late[i].is_some() {
                push(&|world| {
                    let request = world.late[i].take().unwrap();
                    world.register.land(name, &request);
                });
            }
            match &self.calls[i] {
                Call::None => {
                    if let Next::Ask(request) = self.candidates[i].next(now)
                        && (request == Request::Read || self.may_write(i, bounds))
                    {
                        // When a read was sent and whether it was lost changes nothing: it lands when it is asked.
                        push(&|world| {
                            world.calls[i] = if request == Request::Read {
                                Call::Landed(request.clone(), now, world.register.land(name, &request))
                            } else {
                                Call::Sent(request.clone(), now)
                            };
                        });
                    }
                    if bounds.release && self.candidates[i].leads(now) {
                        push(&|world| {
                            if let Some(request) = world.candidates[i].release() {
                                world.calls[i] = Call::Sent(request, now);
                            }
                        });
                    }
                }
                Call::Sent(request, started) => {
                    push(&|world| {
                        let answer = world.register.land(name, request);
                        world.calls[i] = Call::Landed(request.clone(), *started, answer);
                    });
                    push(&|world| {
                        world.calls[i] = Call::None;
                        world.late[i] = bounds.late.then(|| request.clone());
                        world.candidates[i].answered(request, *started, Answer::Unknown, now);
                    });
                }
                Call::Landed(request, started, answer) => {
                    let lost = (*request != Request::Read).then_some(Answer::Unknown);
                    for answer in [Some(answer.clone()), lost].into_iter().flatten() {
                        push(&|world| {
                            world.calls[i] = Call::None;
                            world.candidates[i].answered(request, *started, answer.clone(), now);
                        });
                    }
                }
            }
        }
        worlds
    }
}

/// Walks everything within the bounds; returns how many worlds there are, how many handed over, and the first with
/// two leaders.
fn explore(settings: Settings, bounds: Bounds) -> (usize, usize, Option<World>) {
    let mut seen = HashSet::new();
    // Worlds are kept by their 64-bit hash: a collision would hide one, once in 10^12 at this size.
    let hash = |world: &World| BuildHasherDefault::<DefaultHasher>::default().hash_one(world);
    let mut handed_over = 0;
    let mut open = vec![World::new(settings)];
    while let Some(world) = open.pop() {
        if world.leaders() > 1 {
            return (seen.len(), handed_over, Some(world));
        }
        if world.register.lease.as_ref().is_some_and(|lease| lease.term > 1) && world.leaders() == 1 {
            handed_over += 1;
        }
        for next in world.next(bounds) {
            if seen.insert(hash(&next)) {
                open.push(next);
            }
        }
    }
    (seen.len(), handed_over, None)
}

#[test]
fn no_interleaving_lets_two_lead() {
    let walks = [
        CALM,
        Bounds { late: true, ..CALM },
        Bounds { deletion: true, ..CALM },
        Bounds { release: true, ..CALM },
    ];
    for bounds in walks {
        let (worlds, handed_over, violation) = explore(settings(2, 1, 1), bounds);
        eprintln!("{worlds} worlds, {handed_over} after a take-over: {bounds:?}");
        assert_eq!(violation, None);
        assert!(worlds > 10_000, "{worlds} worlds are too few to mean anything");
        assert!(handed_over > 0, "a take-over must be possible");
    }
}

/// The checker is checked: with a deadline above the take-over time it finds two leaders.
#[test]
fn the_walk_finds_times_that_do_not_fit() {
    let (_, _, violation) = explore(settings(2, 4, 1), CALM);
    assert!(violation.is_some());
}

#[test]
fn a_missing_lease_is_waited_for_as_a_silent_holder_is() {
    let mut one = Candidate::new("a", settings(3, 2, 1));
    for now in 0..3 {
        assert_eq!(one.next(Instant(now)), Next::Ask(Request::Read), "at {now}");
        one.answered(&Request::Read, Instant(now), Answer::Missing, Instant(now));
    }
    assert_eq!(one.next(Instant(3)), Next::Ask(Request::Create));
    one.answered(&Request::Create, Instant(3), Answer::Written(Version("1".into())), Instant(4));
    assert!(one.leads(Instant(4)) && !one.leads(Instant(5)), "counted from the start of the request");
}

#[test]
fn an_unknown_answer_prolongs_nothing_and_a_released_lease_is_free_at_once() {
    let mut one = Candidate::new("a", settings(30, 20, 2));
    let free = Lease { holder: None, version: Version("1".into()), term: 4 };
    one.answered(&Request::Read, Instant(0), Answer::Found(free), Instant(1));
    let Next::Ask(take) = one.next(Instant(1)) else { panic!() };
    one.answered(&take, Instant(1), Answer::Written(Version("2".into())), Instant(2));
    assert_eq!((one.acts_until(), one.term()), (Some(Instant(21)), 5));
    let Next::Ask(renew) = one.next(Instant(3)) else { panic!() };
    one.answered(&renew, Instant(3), Answer::Unknown, Instant(5));
    assert_eq!(one.acts_until(), Some(Instant(21)));
    assert_eq!(one.next(Instant(7)), Next::Ask(Request::Read));
    let mine = Lease { holder: Some("a".into()), version: Version("3".into()), term: 5 };
    one.answered(&Request::Read, Instant(7), Answer::Found(mine), Instant(8));
    let Next::Ask(Request::Write { on, term, .. }) = one.next(Instant(8)) else { panic!() };
    assert_eq!((on.0.as_str(), term), ("3", 5));
    let released = one.release();
    assert!(matches!(released, Some(Request::Write { holder: None, .. })) && !one.leads(Instant(8)));
}
