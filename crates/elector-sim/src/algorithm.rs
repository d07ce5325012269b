//! What a candidate of any kind must be able to do in these worlds, and ours.

use ha::Version;
use ha::election::{Answer, Candidate, Next, Record, Request};

use crate::clock::Local;
use crate::register::{Ask, Guard, Reply, Stored};

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask this now.
    Ask(Ask),
    /// Nothing before this instant of the own boot-time clock.
    Wait(ha::Instant),
}

/// One candidate.
pub trait Algorithm {
    /// What to do now.
    fn next(&mut self, now: Local) -> Step;
    /// What came of a request.
    fn answered(&mut self, ask: &Ask, started: Local, reply: Reply, now: Local);
    /// A watch shows this; nothing when it was deleted.
    fn observed(&mut self, _stored: Option<&Stored>, _now: Local) {}
    /// Whether its owner acts.
    fn leads(&self, now: Local) -> bool;
    /// Under which epoch; `None` when it has none.
    fn epoch(&self) -> Option<u64>;
    /// Steps down; what to ask for that.
    fn step_down(&mut self, now: Local) -> Option<Ask>;
}

/// Ours.
#[derive(Debug)]
pub struct Ours {
    candidate: Candidate,
    /// Mutation: goes by the wall clock.
    pub wall_clock: bool,
    /// Mutation: replaces without a version.
    pub without_version: bool,
}

impl Ours {
    /// This candidate.
    pub fn new(candidate: Candidate) -> Self {
        Self { candidate, wall_clock: false, without_version: false }
    }

    fn clock(&self, now: Local) -> ha::Instant {
        if self.wall_clock { ha::Instant(now.wall) } else { now.boot }
    }

    fn ask(&self, request: Request) -> Ask {
        match request {
            Request::Read => Ask::Read,
            Request::Create(content) => Ask::Create(content),
            Request::Replace { content, .. } if self.without_version => Ask::Write(Guard::None, content),
            Request::Replace { on, content } => {
                Ask::Write(Guard::Version(on.0.parse().unwrap_or(u64::MAX)), content)
            }
        }
    }
}

fn record(stored: &Stored) -> Record {
    Record { version: Version(stored.version.to_string()), content: stored.content.clone() }
}

impl Algorithm for Ours {
    fn next(&mut self, now: Local) -> Step {
        let clock = self.clock(now);
        match self.candidate.next(clock) {
            Next::Ask(request) => Step::Ask(self.ask(request)),
            // A wall clock may have been set back: looked at again soon, as a driver would.
            Next::Wait(until) => {
                Step::Wait(now.boot.after(until.since(clock).min(self.candidate.times().ttl())))
            }
        }
    }

    fn answered(&mut self, ask: &Ask, started: Local, reply: Reply, now: Local) {
        let request = match ask {
            Ask::Read => Request::Read,
            Ask::Create(content) => Request::Create(content.clone()),
            Ask::Write(guard, content) => {
                let on = if let Guard::Version(on) = guard { *on } else { 0 };
                Request::Replace { on: Version(on.to_string()), content: content.clone() }
            }
        };
        let answer = match reply {
            Reply::Found(stored) => Answer::Found(record(&stored)),
            Reply::Missing => Answer::Missing,
            Reply::Written(version) => Answer::Written(Version(version.to_string())),
            Reply::Conflict => Answer::Lost,
            Reply::Unknown => Answer::Unknown,
        };
        let (started, now) = (self.clock(started), self.clock(now));
        self.candidate.answered(&request, started, answer, now);
    }

    fn observed(&mut self, stored: Option<&Stored>, now: Local) {
        match stored {
            Some(stored) => self.candidate.observed(record(stored), self.clock(now)),
            None => self.candidate.vanished(),
        }
    }

    fn leads(&self, now: Local) -> bool {
        self.candidate.leads(self.clock(now))
    }

    fn epoch(&self) -> Option<u64> {
        Some(self.candidate.epoch())
    }

    fn step_down(&mut self, now: Local) -> Option<Ask> {
        let clock = self.clock(now);
        let request = self.candidate.step_down(None, clock).ok()?;
        Some(self.ask(request))
    }
}
