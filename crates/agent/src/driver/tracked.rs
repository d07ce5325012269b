//! What only we know of the running Postgres, because no query shows it.
//!
//! `SHOW` proves nothing about the names in force (rule 7a), a reload reaches each process at its own time (P13), and
//! no view tells which life of an upstream was checked. The acts write here what they have shown to be so, and
//! "unknown" or the cautious value *before* they begin to change it. Everything is forgotten at every start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ha::{Gate, Incarnation, Lsn, Names, Position, Upstream};

/// Facts about one run of Postgres.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Facts {
    /// Counts the runs, so that a probe of an earlier run is recognised.
    pub(crate) run: u64,
    /// Whom the configuration names, as checked by the act that wrote it.
    pub(crate) upstream: Option<Upstream>,
    /// The end of the local log, as shown by the seal.
    pub(crate) end: Option<Position>,
    /// Who may connect; `Open` from the moment before anybody could.
    pub(crate) gate: Gate,
    /// What is surely in force.
    pub(crate) names: Names,
    /// See [`ha::Primary::first_record`].
    pub(crate) first_record: Option<Lsn>,
    /// See [`ha::Primary::fence_xid`].
    pub(crate) fence_xid: Option<u64>,
    /// Roles, passwords and database were provisioned in this run.
    pub(crate) provisioned: bool,
    /// Members whose slot and role were made or seen in this run.
    pub(crate) prepared: BTreeSet<Incarnation>,
    /// For whom slots and roles were swept in this run, when nothing was left to drop.
    pub(crate) swept: Option<BTreeSet<Incarnation>>,
    /// P19: what this run was started with at the least.
    pub(crate) floors: BTreeMap<String, u64>,
}

impl Facts {
    fn of_run(run: u64) -> Self {
        Self {
            run,
            upstream: None,
            end: None,
            gate: Gate::Closed,
            names: Names::Unknown,
            first_record: None,
            fence_xid: None,
            provisioned: false,
            prepared: BTreeSet::new(),
            swept: None,
            floors: BTreeMap::new(),
        }
    }
}

/// The facts, shared between acts and probe. Never held across an await.
#[derive(Debug)]
pub(crate) struct Tracked(Mutex<Facts>);

impl Default for Tracked {
    fn default() -> Self {
        Self(Mutex::new(Facts::of_run(0)))
    }
}

impl Tracked {
    /// A copy of what is known.
    pub(crate) fn get(&self) -> Facts {
        self.lock().clone()
    }

    /// After a restart of the agent alone: the gate is what the file says that the running server was given.
    pub(crate) fn found_running(&self, hba: &str) {
        let open = hba.lines().any(|line| line.trim() == "hostssl all all all scram-sha-256");
        self.set(|facts| facts.gate = if open { Gate::Open } else { Gate::Closed });
    }

    /// Writes what was shown, or doubts what was known.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.lock());
    }

    /// Forgets everything: Postgres is about to be started, or is gone.
    pub(crate) fn forget(&self) {
        let mut facts = self.lock();
        *facts = Facts::of_run(facts.run + 1);
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
