//! Who of several equal processes acts: election by compare-and-swap on one Lease, without any database.
//!
//! The operator's replicas use it. It decides when to read, take, renew and release, and until when this
//! candidate may act. Time is an argument and always the observer's own: a candidate takes over when *it* has seen
//! the same version for `takeover`, and acts only until `renew_deadline` after the *start* of its last request that
//! is known to have succeeded. The clocks of two machines are never compared.
//!
//! It must never let two candidates act at once (`tests::no_interleaving_lets_two_lead`, which walks every order of
//! requests, landings, lost answers and late landings of two candidates), given that their clocks run at about the
//! same rate. A missing Lease is unknown, not free: it is waited for as a silent holder is, since whoever held it
//! may still act.

use std::time::Duration;

use crate::types::{Instant, Version};

/// The times of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Settings {
    takeover: Duration,
    renew_deadline: Duration,
    retry: Duration,
}

/// Times with which two could act at once, or nobody for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// A silent holder would still act when another takes over.
    #[error("takeover must be longer than the renew deadline and one call together")]
    TakeoverTooShort,
    /// One lost answer would end every term.
    #[error("the renew deadline must be longer than twice a retry and a call together")]
    DeadlineTooShort,
}

impl Settings {
    /// 15 s, 10 s and 2 s, as Kubernetes' own controllers have them; fit for calls bounded at up to 2 s.
    pub const DEFAULT: Self = Self {
        takeover: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };

    /// Times for calls that take at most `call`.
    ///
    /// # Errors
    /// When the times do not fit together.
    pub fn new(
        takeover: Duration,
        renew_deadline: Duration,
        retry: Duration,
        call: Duration,
    ) -> Result<Self, InvalidSettings> {
        if takeover <= renew_deadline + call {
            return Err(InvalidSettings::TakeoverTooShort);
        }
        if renew_deadline <= 2 * (retry + call) {
            return Err(InvalidSettings::DeadlineTooShort);
        }
        Ok(Self { takeover, renew_deadline, retry })
    }

    /// How long the same version is seen before its holder is taken for gone.
    pub fn takeover(&self) -> Duration {
        self.takeover
    }
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// Who holds it; none when it was released or never taken.
    pub holder: Option<String>,
    /// Its version.
    pub version: Version,
    /// How often it changed hands.
    pub term: u64,
}

/// What to ask the API server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// A fresh read.
    Read,
    /// Create it, held by this candidate.
    Create,
    /// Replace it on this very version.
    Write {
        /// The version.
        on: Version,
        /// The new holder: this candidate, or none when it releases.
        holder: Option<String>,
        /// The new term.
        term: u64,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// A read found this.
    Found(Lease),
    /// A read, or a write, found none.
    Missing,
    /// The write took place; this is the new version.
    Written(Version),
    /// The write did not take place: another version is there.
    Lost,
    /// Nobody knows.
    Unknown,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Ask this now.
    Ask(Request),
    /// Nothing before this instant.
    Wait(Instant),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Seen {
    Nothing,
    Missing { since: Instant },
    Lease { lease: Lease, since: Instant },
}

/// One candidate: everything it remembers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    me: String,
    settings: Settings,
    seen: Seen,
    must_read: bool,
    next_at: Instant,
    acts_until: Option<Instant>,
}

impl Candidate {
    /// A candidate that has seen nothing. `me` must be unique to this start of the process: two lives of one pod
    /// are two candidates.
    pub fn new(me: impl Into<String>, settings: Settings) -> Self {
        Self {
            me: me.into(),
            settings,
            seen: Seen::Nothing,
            must_read: true,
            next_at: Instant(0),
            acts_until: None,
        }
    }

    /// Who this candidate is.
    pub fn identity(&self) -> &str {
        &self.me
    }

    /// Until when this candidate may act; `None`: it may not. To be compared with the clock before each act.
    pub fn acts_until(&self) -> Option<Instant> {
        self.acts_until
    }

    /// Whether this candidate may act at `now`.
    pub fn leads(&self, now: Instant) -> bool {
        self.acts_until.is_some_and(|until| now < until)
    }

    /// The holder that was seen last, for people.
    pub fn holder(&self) -> Option<&str> {
        match &self.seen {
            Seen::Lease { lease, .. } => lease.holder.as_deref(),
            _ => None,
        }
    }

    /// The term that was seen last.
    pub fn term(&self) -> u64 {
        match &self.seen {
            Seen::Lease { lease, .. } => lease.term,
            _ => 0,
        }
    }

    /// What to do at `now`. At most one request is under way at a time.
    pub fn next(&self, now: Instant) -> Next {
        if now < self.next_at {
            return Next::Wait(self.next_at);
        }
        if self.must_read {
            return Next::Ask(Request::Read);
        }
        let (since, request) = match &self.seen {
            Seen::Nothing => return Next::Ask(Request::Read),
            Seen::Missing { since } => (*since, Request::Create),
            Seen::Lease { lease, since } => {
                let mine = lease.holder.as_deref() == Some(self.me.as_str());
                let write = Request::Write {
                    on: lease.version.clone(),
                    holder: Some(self.me.clone()),
                    term: if mine { lease.term } else { lease.term.saturating_add(1) },
                };
                if mine || lease.holder.is_none() {
                    return Next::Ask(write);
                }
                (*since, write)
            }
        };
        if now.since(since) >= self.settings.takeover { Next::Ask(request) } else { Next::Ask(Request::Read) }
    }

    /// The request that gives the Lease back, for a clean exit. The candidate may not act from this call on,
    /// whatever becomes of the request.
    pub fn release(&mut self) -> Option<Request> {
        self.acts_until = None;
        match &self.seen {
            Seen::Lease { lease, .. } if lease.holder.as_deref() == Some(self.me.as_str()) => {
                Some(Request::Write { on: lease.version.clone(), holder: None, term: lease.term })
            }
            _ => None,
        }
    }

    /// Takes in what came of `request`, which was sent at `started`.
    pub fn answered(&mut self, request: &Request, started: Instant, answer: Answer, now: Instant) {
        let retry = self.settings.retry;
        match (answer, request) {
            (Answer::Found(lease), _) => self.found(lease, now),
            (Answer::Missing, _) => {
                if !matches!(self.seen, Seen::Missing { .. }) {
                    self.seen = Seen::Missing { since: now };
                }
                // Read again before creating: the wait for a silent holder applies.
                self.must_read = false;
                self.next_at = now.after(retry);
            }
            (Answer::Written(version), Request::Create) => {
                self.wrote(Lease { holder: Some(self.me.clone()), version, term: 1 }, started, now);
            }
            (Answer::Written(version), Request::Write { holder, term, .. }) => {
                self.wrote(Lease { holder: holder.clone(), version, term: *term }, started, now);
            }
            (Answer::Lost, _) => {
                self.must_read = true;
                self.next_at = now;
            }
            (Answer::Unknown | Answer::Written(_), _) => {
                self.must_read = true;
                self.next_at = now.after(retry);
            }
        }
    }

    fn found(&mut self, lease: Lease, now: Instant) {
        self.must_read = false;
        let mine = lease.holder.as_deref() == Some(self.me.as_str());
        let silent_since = match &self.seen {
            Seen::Lease { lease: known, since } if known.version == lease.version => *since,
            _ => now,
        };
        if !mine {
            self.acts_until = None;
        }
        let taken = !mine && lease.holder.is_some() && now.since(silent_since) < self.settings.takeover;
        self.next_at = if taken { now.after(self.settings.retry) } else { now };
        self.seen = Seen::Lease { lease, since: silent_since };
    }

    fn wrote(&mut self, lease: Lease, started: Instant, now: Instant) {
        let mine = lease.holder.is_some();
        self.acts_until = mine.then(|| started.after(self.settings.renew_deadline));
        self.must_read = false;
        self.next_at = started.after(self.settings.retry).max(now);
        self.seen = Seen::Lease { lease, since: now };
    }
}

#[cfg(test)]
mod tests;
