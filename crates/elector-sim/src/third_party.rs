//! Four published algorithms, re-modelled in a few lines each from what their sources do, to see which let two lead.
//!
//! What matters is how they take over and by which clock; their other merits are not judged here. All of them have the same
//! TTL and a bound of each call, which some of them leave to their user.

use std::time::Duration;

use ha::Instant;
use ha::election::Content;

use crate::algorithm::{Algorithm, Step};
use crate::clock::Local;
use crate::register::{Ask, Guard, Reply, Stored};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// kube-leader-election 0.44: merge patch without a version, remote wall clock.
    LeaderElection,
    /// kube-lease-manager 0.13: clears whoever holds it, waits at random, applies without force; remote wall clock.
    LeaseManager,
    /// kubert 0.25: apply with a version, remote wall clock.
    Kubert,
    /// kube-coordinate 2.0: apply with a version once a held Lease was seen, forced before; own clock.
    Coordinate,
}

impl Which {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::LeaderElection, Self::LeaseManager, Self::Kubert, Self::Coordinate];

    /// The crate's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeaderElection => "kube-leader-election",
            Self::LeaseManager => "kube-lease-manager",
            Self::Kubert => "kubert",
            Self::Coordinate => "kube-coordinate",
        }
    }
}

/// One candidate.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "what each of four algorithms remembers")]
pub struct ThirdParty {
    which: Which,
    me: String,
    ttl: Duration,
    /// Chance, for pauses: one number per candidate.
    luck: u64,
    seen: Option<Stored>,
    /// When the holder's renewal was first seen.
    since: Instant,
    missing: bool,
    known: bool,
    next_at: Instant,
    /// The holder was cleared: what is left is to apply.
    cleared: bool,
    leads: bool,
    /// Until then by its own wall clock.
    claims_until: u64,
}

impl ThirdParty {
    /// A candidate.
    pub fn new(which: Which, me: String, ttl: Duration, luck: u64) -> Self {
        Self {
            which,
            me,
            ttl,
            luck,
            seen: None,
            since: Instant(0),
            missing: false,
            known: false,
            next_at: Instant(0),
            cleared: false,
            leads: false,
            claims_until: 0,
        }
    }

    fn mine(&self) -> Content {
        let renewal = self.seen.as_ref().map_or(0, |seen| seen.content.renewal) + 1;
        Content { holder: Some(self.me.clone()), renewal, ttl: Some(self.ttl), ..Content::default() }
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.ttl.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether the holder counts as gone.
    fn expired(&self, stored: &Stored, now: Local) -> bool {
        match self.which {
            Which::Coordinate => now.boot.since(self.since) >= stored.content.ttl.unwrap_or(self.ttl),
            _ => now.wall > stored.renewed.saturating_add(self.nanos()),
        }
    }

    fn write(&self, version: u64) -> Ask {
        let guard = match self.which {
            Which::LeaderElection => Guard::None,
            Which::LeaseManager => Guard::NotAnothers,
            Which::Kubert => Guard::Version(version),
            Which::Coordinate => {
                let held = self.seen.as_ref().is_some_and(|seen| seen.content.holder.is_some());
                if held { Guard::Version(version) } else { Guard::None }
            }
        };
        Ask::Write(guard, self.mine())
    }
}

impl Algorithm for ThirdParty {
    fn next(&mut self, now: Local) -> Step {
        if now.boot < self.next_at {
            return Step::Wait(self.next_at);
        }
        if self.cleared {
            self.cleared = false;
            return Step::Ask(Ask::Write(Guard::NotAnothers, self.mine()));
        }
        if !self.known {
            return Step::Ask(Ask::Read);
        }
        self.known = false;
        let pause = now.boot.after(self.ttl / 3);
        if self.missing {
            return Step::Ask(match self.which {
                Which::Coordinate | Which::LeaseManager => Ask::Write(Guard::None, self.mine()),
                _ => Ask::Create(self.mine()),
            });
        }
        let Some(seen) = &self.seen else { return Step::Ask(Ask::Read) };
        match &seen.content.holder {
            Some(holder) if *holder == self.me => Step::Ask(self.write(seen.version)),
            None => Step::Ask(self.write(seen.version)),
            Some(_) if self.expired(seen, now) => {
                if self.which == Which::LeaseManager {
                    self.cleared = true;
                    self.next_at = now.boot.after(Duration::from_millis(self.luck % 1000));
                    return Step::Ask(Ask::Write(Guard::None, Content { holder: None, ..self.mine() }));
                }
                Step::Ask(self.write(seen.version))
            }
            Some(_) => {
                self.leads = false;
                self.next_at = pause;
                Step::Wait(pause)
            }
        }
    }

    fn answered(&mut self, ask: &Ask, started: Local, reply: Reply, now: Local) {
        let ours = matches!(ask, Ask::Create(content) | Ask::Write(_, content) if content.holder.as_ref() == Some(&self.me));
        match reply {
            Reply::Found(stored) => {
                let stamp =
                    |stored: &Stored| (stored.content.holder.clone(), stored.content.renewal, stored.renewed);
                if self.seen.as_ref().map(stamp) != Some(stamp(&stored)) {
                    self.since = now.boot;
                }
                (self.seen, self.missing, self.known) = (Some(stored), false, true);
            }
            Reply::Missing => (self.missing, self.known) = (true, *ask == Ask::Read),
            Reply::Written(_) if ours => {
                self.leads = true;
                self.claims_until = started.wall.saturating_add(self.nanos());
                self.next_at = now.boot.after(self.ttl / 3);
            }
            Reply::Written(_) => {}
            Reply::Conflict | Reply::Unknown => {
                self.leads = false;
                self.cleared = false;
                self.next_at = now.boot.after(self.ttl / 20);
            }
        }
    }

    fn leads(&self, now: Local) -> bool {
        self.leads && (self.which != Which::Kubert || now.wall < self.claims_until)
    }

    fn epoch(&self) -> Option<u64> {
        None
    }

    fn step_down(&mut self, _now: Local) -> Option<Ask> {
        None
    }
}
