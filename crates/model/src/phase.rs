//! What a member is, in a word: the states of the diagram in `docs/protocol.md`.
//!
//! `decide` keeps no such state; it looks at everything each time. The words are for people, and the transitions
//! between them, as the search and the simulator see them, must be those that are drawn: `tests/transitions.rs`.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::state::{Server, State};
use crate::who::Who;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Its Postgres does not run.
    Down,
    /// A standby off every stream, which may follow.
    Detached,
    /// A standby that streams from the recorded leader, or tries to.
    Following,
    /// A standby sealed above the epoch of the record: it reports, and may win.
    Sealed,
    /// A standby that the record names: it has won, or was master before it stopped.
    Recorded,
    /// Being promoted.
    Promoting,
    /// Out of recovery with a closed gate.
    Gated,
    /// Out of recovery with an open gate.
    Leading,
    /// Out of recovery although the record that it knows does not name this life of it.
    Deposed,
}

/// What a Postgres does, as far as the words go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Nothing, or it starts.
    No,
    /// It recovers; with an upstream, or none.
    Recovers {
        /// There is one.
        upstream: bool,
    },
    /// A promotion is under way.
    Promotes,
    /// It is out of recovery.
    Masters {
        /// Its gate is open.
        open: bool,
    },
}

/// What the words depend on.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Its Postgres.
    pub runs: Runs,
    /// Its promise.
    pub sealed_below: u64,
    /// The epoch of the record that it goes by; 0 for none.
    pub epoch: u64,
    /// That record names this member.
    pub recorded: bool,
    /// In this very life.
    pub this_life: bool,
}

impl Phase {
    /// The word for these facts.
    pub const fn of(facts: &Facts) -> Self {
        match facts.runs {
            Runs::No => Self::Down,
            Runs::Promotes => Self::Promoting,
            Runs::Masters { .. } if !(facts.recorded && facts.this_life) => Self::Deposed,
            Runs::Masters { open: true } => Self::Leading,
            Runs::Masters { open: false } => Self::Gated,
            Runs::Recovers { .. } if facts.recorded => Self::Recorded,
            Runs::Recovers { .. } if facts.sealed_below > facts.epoch => Self::Sealed,
            Runs::Recovers { upstream: true } => Self::Following,
            Runs::Recovers { upstream: false } => Self::Detached,
        }
    }
}

impl State {
    /// What a member is.
    pub fn phase(&self, who: Who) -> Phase {
        let member = self.members.of(who);
        let runs = match member.server {
            Server::Down => Runs::No,
            Server::Standby { upstream } => Runs::Recovers { upstream: upstream.is_some() },
            Server::Promoting { .. } => Runs::Promotes,
            Server::Primary(primary) => Runs::Masters { open: primary.open },
        };
        let record = self.numbered(member.known).or_else(|| self.numbered(member.last_record));
        Phase::of(&Facts {
            runs,
            sealed_below: u64::from(member.sealed),
            epoch: record.map_or(0, |record| u64::from(record.epoch)),
            recorded: record.is_some_and(|record| record.leader == who),
            this_life: record.is_some_and(|record| record.names_life(who, member.boot)),
        })
    }
}

/// From what to what, and nothing else.
pub type Transitions = BTreeSet<(Phase, Phase)>;

/// Notes every transition of a search.
#[derive(Debug, Default)]
pub struct Observer(Mutex<Transitions>);

impl Observer {
    /// One step of the world.
    pub(crate) fn step(&self, before: &State, after: &State, members: usize) {
        for who in Who::first(members) {
            let change = (before.phase(who), after.phase(who));
            if change.0 != change.1 {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(change);
            }
        }
    }

    /// What was seen.
    pub fn seen(&self) -> Transitions {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
