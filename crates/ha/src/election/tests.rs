use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use super::{
    Answer, Candidacy, Candidate, Content, InvalidTimes, Next, NotInOffice, Record, Request, Rules, Times,
};
use crate::types::{Instant, Version};

fn ticks(ttl: u64, deadline: u64) -> Times {
    let ticks = Duration::from_nanos;
    Times { ttl: ticks(ttl), deadline: ticks(deadline), renew: ticks(0), retry: ticks(1), call: ticks(0) }
}

#[test]
fn times_that_do_not_fit_are_refused() {
    let seconds = Duration::from_secs;
    let ten = Times::of_ttl(seconds(10)).unwrap();
    assert_eq!((ten.deadline(), ten.renew()), (seconds(8), seconds(10) / 3));
    assert!(Times::of_ttl(seconds(1)).is_ok() && Times::of_ttl(seconds(3600)).is_ok());
    for short in [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(999)] {
        assert_eq!(Times::of_ttl(short), Err(InvalidTimes::TooShort(short)));
    }
    assert!(matches!(Times::of_ttl(seconds(3601)), Err(InvalidTimes::TooLong(_))));
    assert_eq!(ten.with_deadline(seconds(9)), Err(InvalidTimes::DeadlineTooLate));
    assert_eq!(ten.with_deadline(seconds(7)), Err(InvalidTimes::DeadlineTooEarly));
}

/// The Lease as the API server keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Register {
    record: Option<Record>,
    writes: u64,
}

impl Register {
    fn land(&mut self, request: &Request) -> Answer {
        let content = match (request, &self.record) {
            (Request::Read, Some(record)) => return Answer::Found(record.clone()),
            (Request::Read | Request::Replace { .. }, None) => return Answer::Missing,
            (Request::Create(_), Some(_)) => return Answer::Lost,
            (Request::Replace { on, .. }, Some(record)) if *on != record.version => return Answer::Lost,
            (Request::Create(content), None) | (Request::Replace { content, .. }, Some(_)) => content,
        };
        self.writes += 1;
        let version = Version((self.writes + 1).to_string());
        self.record = Some(Record { version: version.clone(), content: content.clone() });
        Answer::Written(version)
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
    /// Writes that were tried: each has a stamp of its own, so without a bound there would be no end of worlds.
    tried: u64,
}

/// What may happen in a walk, besides requests, landings and time.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    time: u64,
    writes: u64,
    /// Writes that may be tried and not land.
    in_vain: u64,
    /// Requests whose sender gave up land later, at any time.
    late: bool,
    /// Somebody deletes the Lease, once.
    deletion: bool,
    /// Holders release.
    release: bool,
}

const CALM: Bounds = Bounds { time: 3, writes: 2, in_vain: 1, late: false, deletion: false, release: false };

impl World {
    fn new(times: Times, rules: Rules) -> Self {
        let names = ["a", "b"];
        let released = Content { epoch: Some(0), ..Content::default() };
        Self {
            now: 0,
            register: Register {
                record: Some(Record { version: Version("1".into()), content: released }),
                writes: 0,
            },
            candidates: names.iter().map(|name| Candidate::new(*name, times).with_rules(rules)).collect(),
            calls: names.iter().map(|_| Call::None).collect(),
            late: names.iter().map(|_| None).collect(),
            deleted: false,
            tried: 0,
        }
    }

    fn leaders(&self) -> usize {
        self.candidates.iter().filter(|candidate| candidate.leads(Instant(self.now))).count()
    }

    /// The candidates are alike, so it is no loss that the first write is always the first one's.
    fn may_write(&self, candidate: usize, bounds: Bounds) -> bool {
        self.register.writes < bounds.writes
            && self.tried < bounds.writes + bounds.in_vain
            && (self.register.writes > 0 || candidate == 0)
    }

    /// Every world that can come next.
    fn next(&self, bounds: Bounds) -> Vec<Self> {
        let mut worlds = Vec::new();
        let mut push = |change: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            change(&mut world);
            world.candidates.iter_mut().for_each(Candidate::forget_times);
            worlds.push(world);
        };
        if self.now < bounds.time {
            push(&|world| world.now += 1);
        }
        // At the first moment only, and of one candidate's requests only: fewer worlds, and no other kind of them.
        if bounds.deletion && !self.deleted && self.leaders() > 0 && self.now == 0 {
            push(&|world| {
                world.deleted = true;
                world.register.record = None;
            });
        }
        for i in 0..self.candidates.len() {
            let now = Instant(self.now);
            if self.late[i].is_some() {
                push(&|world| {
                    let request = world.late[i].take().unwrap();
                    world.register.land(&request);
                });
            }
            match &self.calls[i] {
                Call::None => {
                    if let Next::Ask(request) = self.candidates[i].next(now)
                        && (request == Request::Read || self.may_write(i, bounds))
                    {
                        // A read takes no time here: what it misses later is what compare-and-swap finds.
                        push(&|world| {
                            if request == Request::Read {
                                let answer = world.register.land(&request);
                                world.candidates[i].answered(&request, now, answer, now);
                            } else {
                                world.tried += 1;
                                world.calls[i] = Call::Sent(request.clone(), now);
                            }
                        });
                    }
                    if bounds.release && self.candidates[i].leads(now) {
                        push(&|world| {
                            if let Some(request) = world.candidates[i].release(now) {
                                world.calls[i] = Call::Sent(request, now);
                            }
                        });
                    }
                }
                Call::Sent(request, started) => {
                    push(&|world| {
                        let answer = world.register.land(request);
                        world.calls[i] = Call::Landed(request.clone(), *started, answer);
                    });
                    push(&|world| {
                        world.calls[i] = Call::None;
                        world.late[i] = (bounds.late && i == 0).then(|| request.clone());
                        world.candidates[i].answered(request, *started, Answer::Unknown, now);
                    });
                }
                Call::Landed(request, started, answer) => {
                    for answer in [answer.clone(), Answer::Unknown] {
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
fn explore(times: Times, rules: Rules, bounds: Bounds) -> (usize, usize, Option<World>) {
    let mut seen = HashSet::new();
    // Worlds are kept by their 64-bit hash: a collision would hide one, once in 10^12 at this size.
    let hash = |world: &World| BuildHasherDefault::<DefaultHasher>::default().hash_one(world);
    let mut handed_over = 0;
    let mut open = vec![World::new(times, rules)];
    while let Some(world) = open.pop() {
        if world.leaders() > 1 {
            return (seen.len(), handed_over, Some(world));
        }
        if world.candidates[1].leads(Instant(world.now)) {
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
        Bounds { deletion: true, writes: 3, ..CALM },
        Bounds { release: true, ..CALM },
    ];
    for bounds in walks {
        let (worlds, handed_over, violation) = explore(ticks(2, 1), Rules::default(), bounds);
        eprintln!("{worlds} worlds, {handed_over} after a take-over: {bounds:?}");
        assert_eq!(violation, None);
        assert!(worlds > 5_000, "{worlds} worlds are too few to mean anything");
        assert!(handed_over > 0, "a take-over must be possible");
    }
}

/// The checker is checked: with a deadline above the TTL, and without some rules, it finds two leaders.
#[test]
fn the_walk_finds_times_and_rules_that_do_not_fit() {
    let all = Rules::default();
    let broken = [
        (ticks(2, 4), all, CALM),
        (ticks(2, 2), Rules { from_request: false, ..all }, CALM),
        (ticks(2, 1), Rules { conflict_is_no_success: false, ..all }, CALM),
        (
            ticks(2, 1),
            Rules { stop_before_release: false, ..all },
            Bounds { release: true, writes: 3, ..CALM },
        ),
        (
            ticks(2, 1),
            Rules { missing_is_unknown: false, ..all },
            Bounds { deletion: true, writes: 3, ..CALM },
        ),
    ];
    for (times, rules, bounds) in broken {
        assert!(explore(times, rules, bounds).2.is_some(), "{times:?} {rules:?}");
    }
}

fn held(by: &str, epoch: u64, renewal: u64, ttl: Duration) -> Content {
    Content { holder: Some(by.into()), epoch: Some(epoch), renewal, ttl: Some(ttl), ..Content::default() }
}

fn found(version: u64, content: Content) -> Record {
    Record { version: Version(version.to_string()), content }
}

fn second(n: u64) -> Instant {
    Instant(n * 1_000_000_000)
}

const TTL: Duration = Duration::from_secs(10);

fn candidate() -> Candidate {
    Candidate::new("a", Times::of_ttl(TTL).unwrap())
}

fn read(candidate: &mut Candidate, record: Option<Record>, at: Instant) {
    let answer = record.map_or(Answer::Missing, Answer::Found);
    candidate.answered(&Request::Read, at, answer, at);
}

fn asked(candidate: &Candidate, at: Instant) -> Option<Request> {
    match candidate.next(at) {
        Next::Ask(request) => Some(request),
        Next::Wait(until) => {
            assert!(until > at);
            None
        }
    }
}

fn leading(at: u64) -> Candidate {
    let mut one = candidate();
    read(&mut one, Some(found(1, Content { epoch: Some(4), ..Content::default() })), second(at));
    let take = asked(&one, second(at)).unwrap();
    one.answered(&take, second(at), Answer::Written(Version("2".into())), second(at));
    assert!(one.leads(second(at)));
    one
}

#[test]
fn a_missing_lease_is_waited_for_as_a_silent_holder_is() {
    let mut one = candidate();
    read(&mut one, None, second(0));
    let create = asked(&one, second(0)).unwrap();
    assert_eq!(create, Request::Create(Content::default()), "held by nobody");
    one.answered(&create, second(0), Answer::Written(Version("70".into())), second(0));
    for now in [4, 9] {
        read(&mut one, Some(found(70, Content::default())), second(now));
        assert_eq!(asked(&one, second(now)), None, "at {now}");
    }
    let Some(Request::Replace { on, content }) = asked(&one, second(10)) else { panic!() };
    assert_eq!((on.0.as_str(), content.epoch), ("70", Some(71)), "above whatever the deleted one gave out");
    one.answered(
        &Request::Replace { on, content },
        second(11),
        Answer::Written(Version("71".into())),
        second(12),
    );
    assert_eq!(one.acts_until(), Some(second(19)), "counted from the start of the request");
    assert!(one.leads(second(18)) && !one.leads(second(19)));
}

/// Found by the simulator: a Lease that was made, held and deleted between two reads.
#[test]
fn a_lease_that_is_missing_again_is_waited_for_again() {
    let mut one = candidate();
    read(&mut one, None, second(0));
    read(&mut one, None, second(20));
    let create = asked(&one, second(20)).unwrap();
    one.answered(&create, second(20), Answer::Written(Version("70".into())), second(20));
    assert_eq!(asked(&one, second(20)), None);
}

/// Found by the simulator: two empty Leases, one after the other, look alike but for their versions.
#[test]
fn an_empty_lease_in_the_place_of_an_empty_one_is_waited_for_anew() {
    let mut one = candidate();
    one.observed(found(5, Content::default()), second(0));
    one.observed(found(9, Content::default()), second(8));
    read(&mut one, Some(found(9, Content::default())), second(14));
    assert_eq!(asked(&one, second(17)), None);
}

#[test]
fn a_lease_made_anew_under_its_holder_is_still_its_own() {
    let mut one = leading(0);
    one.observed(found(9, Content::default()), second(1));
    assert!(one.leads(second(1)));
    let Some(Request::Replace { content, .. }) = asked(&one, second(1)) else { panic!() };
    assert_eq!((content.holder.as_deref(), content.epoch), (Some("a"), Some(5)));
    one.observed(found(10, Content { epoch: Some(5), renewal: 3, ..Content::default() }), second(1));
    assert!(!one.leads(second(1)), "but what was released in its term is not");
}

#[test]
fn a_leader_makes_a_deleted_lease_again_in_its_own_term() {
    let mut one = leading(0);
    one.vanished();
    assert_eq!(asked(&one, second(1)), Some(Request::Read));
    read(&mut one, None, second(1));
    let Some(Request::Create(content)) = asked(&one, second(1)) else { panic!() };
    assert_eq!((content.holder.as_deref(), content.epoch), (Some("a"), Some(5)));
}

/// Found by the simulator: two attempts with one stamp, and a follower that saw the first took the second for its silence.
#[test]
fn each_attempt_is_another_renewal() {
    let mut one = leading(0);
    read(&mut one, None, second(1));
    let first = asked(&one, second(1)).unwrap();
    one.answered(&first, second(1), Answer::Unknown, second(2));
    read(&mut one, None, second(3));
    let Some(Request::Create(second)) = asked(&one, second(3)) else { panic!() };
    let Request::Create(first) = first else { panic!() };
    assert_ne!(first.renewal, second.renewal);
}

#[test]
fn a_lease_that_nobody_ever_held_may_stand_in_for_one_that_was_deleted() {
    let mut one = candidate();
    read(&mut one, Some(found(9, Content::default())), second(0));
    assert_eq!(asked(&one, second(4)), None);
    let mut fresh = candidate().taking_fresh();
    read(&mut fresh, Some(found(9, Content::default())), second(0));
    assert!(matches!(asked(&fresh, second(0)), Some(Request::Replace { .. })));
}

#[test]
fn an_unknown_answer_prolongs_nothing_and_a_released_lease_is_free_at_once() {
    let mut one = leading(0);
    assert_eq!((one.acts_until(), one.epoch()), (Some(second(8)), 5));
    let renew = asked(&one, second(4)).unwrap();
    one.answered(&renew, second(4), Answer::Unknown, second(5));
    assert_eq!(one.acts_until(), Some(second(8)));
    assert_eq!(asked(&one, second(6)), Some(Request::Read));
    let landed = found(3, held("a", 5, 2, TTL));
    read(&mut one, Some(landed), second(6));
    let Some(Request::Replace { on, content }) = asked(&one, second(6)) else { panic!() };
    assert_eq!((on.0.as_str(), content.epoch), ("3", Some(5)));
    let released = one.release(second(6));
    assert!(matches!(released, Some(Request::Replace { content: Content { holder: None, .. }, .. })));
    assert!(!one.leads(second(6)));
}

#[test]
fn a_conflict_is_read_again_before_it_is_believed() {
    let mut one = leading(0);
    let renew = asked(&one, second(4)).unwrap();
    one.answered(&renew, second(4), Answer::Lost, second(4));
    assert!(one.leads(second(4)), "it may be its own earlier success");
    assert_eq!(asked(&one, second(4)), Some(Request::Read));
    read(&mut one, Some(found(4, held("b", 6, 1, TTL))), second(4));
    assert!(!one.leads(second(4)));
}

#[test]
fn the_timer_is_the_records_and_each_renewal_arms_it_anew() {
    let mut one = candidate();
    let long = Duration::from_secs(60);
    one.observed(found(5, held("b", 3, 1, long)), second(0));
    one.observed(found(6, held("b", 3, 2, long)), second(20));
    one.observed(
        found(
            7,
            Content {
                candidates: [("c".to_owned(), Candidacy { name: "c".into(), priority: 1 })].into(),
                ..held("b", 3, 2, long)
            },
        ),
        second(30),
    );
    read(&mut one, Some(found(7, held("b", 3, 2, long))), second(79));
    assert_eq!(asked(&one, second(79)), None, "a candidate's entry is no renewal, but 80 s it is");
    assert!(matches!(asked(&one, second(80)), Some(Request::Replace { .. })));
}

#[test]
fn an_event_that_comes_late_changes_nothing() {
    let mut one = leading(0);
    one.observed(found(1, held("b", 4, 9, TTL)), second(1));
    assert!(one.leads(second(1)));
    one.observed(found(3, held("b", 6, 1, TTL)), second(1));
    assert!(!one.leads(second(1)));
}

#[test]
fn a_term_that_lapsed_is_followed_by_another_with_its_own_epoch() {
    let mut one = leading(0);
    let renew = asked(&one, second(7)).unwrap();
    one.answered(&renew, second(7), Answer::Written(Version("3".into())), second(9));
    assert!(!one.leads(second(9)), "its deadline passed at 8 s");
    let Some(Request::Replace { content, .. }) = asked(&one, second(9)) else { panic!() };
    assert_eq!(content.epoch, Some(6));
}

#[test]
fn who_steps_down_names_a_candidate_or_leaves_it_to_the_best() {
    let mut one = leading(0);
    assert_eq!(one.step_down(Some("x"), second(1)), Err(NotInOffice::NoSuchCandidate("x".into())));
    assert!(one.leads(second(1)));
    let mut content = held("a", 5, 2, TTL);
    content.candidates.insert("b_uid".into(), Candidacy { name: "b".into(), priority: 1 });
    one.observed(found(3, content), second(1));
    let Ok(Request::Replace { content, .. }) = one.step_down(Some("b"), second(1)) else { panic!() };
    assert_eq!((content.holder.as_ref(), content.successor.as_deref()), (None, Some("b_uid")));
    assert!(!one.leads(second(1)));

    let takes = |mut candidate: Candidate| {
        read(&mut candidate, Some(found(4, content.clone())), second(2));
        asked(&candidate, second(2)).is_some()
    };
    let times = Times::of_ttl(TTL).unwrap();
    assert!(takes(Candidate::new("b_uid", times)) && !takes(Candidate::new("c_uid", times)));
    let mut third = Candidate::new("c_uid", times);
    read(&mut third, Some(found(4, content.clone())), second(2));
    assert!(asked(&third, second(3)).is_some(), "a successor that does not come is not waited for long");
}

#[test]
fn the_best_candidate_is_first_and_an_observer_never_leads() {
    let times = Times::of_ttl(TTL).unwrap();
    let mut content = Content { epoch: Some(4), ..Content::default() };
    for (name, priority) in [("a", 1), ("b", 7)] {
        content.candidates.insert(name.into(), Candidacy { name: name.into(), priority });
    }
    let tries = |priority: u32, name: &str| {
        let mut one = Candidate::new(name, times).standing(name, priority);
        read(&mut one, Some(found(4, content.clone())), second(2));
        (asked(&one, second(2)).is_some(), asked(&one, second(2).after(Duration::from_millis(100))).is_some())
    };
    assert_eq!((tries(7, "b"), tries(1, "a"), tries(0, "o")), ((true, true), (false, true), (false, false)));
}
