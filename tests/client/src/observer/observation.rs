//! What an observer saw of one member, as runs of equal samples.
//!
//! What is not known is a value of its own: a listener of which nothing is known, a role that nobody told. A run goes to
//! the file when it ends and at least once a second, so the file forgets at most that.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::attempt::Member;
use crate::clock::{self, Anchor};
use crate::journal::{Durability, Lines};

/// The longest run of one line, in microseconds.
const LONGEST: u64 = 1_000_000;

/// What a member's port does with those who knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Listener {
    /// It accepts.
    Up,
    /// It refuses.
    Refused,
    /// Silence.
    Timeout,
    /// No address, no route, or something else that tells nothing of it.
    Unknown,
}

/// What a member says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Not in recovery.
    Master,
    /// In recovery.
    Standby,
    /// It said nothing.
    Unknown,
}

/// One look at a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    /// Its port.
    pub(crate) listener: Listener,
    /// Its role.
    pub(crate) role: Role,
    /// The server that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<IpAddr>,
    /// Its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// The timeline that a master writes to, or that a standby had reached at its last restart point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeline: Option<u32>,
    /// The SQLSTATE of its refusal, `57P03` for one that starts or stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
}

/// Equal looks in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// When the first look began, in microseconds since 1970 by the steady clock.
    pub(crate) began: u64,
    /// When the first look ended.
    pub(crate) first_ended: u64,
    /// When the last look began.
    pub(crate) last_began: u64,
    /// When the last look ended.
    pub(crate) ended: u64,
    /// What the wall clock said when the last look ended, in microseconds since 1970.
    pub(crate) wall: u64,
    /// How many.
    pub(crate) looks: u64,
    /// What was seen.
    #[serde(flatten)]
    pub(crate) seen: Look,
}

impl Run {
    /// A run of one look that ends now.
    pub(crate) fn ended_now(began: u64, seen: Look) -> Self {
        let ended = clock::now();
        Self { began, first_ended: ended, last_began: began, ended, wall: clock::wall(), looks: 1, seen }
    }

    /// Who was seen to answer.
    pub(crate) fn member(&self) -> Option<Member> {
        self.seen.server.map(|address| Member { address, port: self.seen.port.unwrap_or_default() })
    }

    /// Takes a later run in; false when it saw something else.
    pub(crate) fn join(&mut self, later: &Self) -> bool {
        if self.seen != later.seen {
            return false;
        }
        self.last_began = later.last_began;
        self.ended = later.ended;
        self.wall = later.wall;
        self.looks += later.looks;
        true
    }
}

/// All that was seen through one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Observed {
    /// Its name.
    pub(crate) host: String,
    /// Where its times begin.
    #[serde(skip)]
    pub(crate) anchor: Anchor,
    /// What was seen, in order; neighbours differ.
    pub(crate) runs: Vec<Run>,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    observer: String,
    host: String,
    #[serde(default)]
    clock: Anchor,
}

/// The log of one observer.
pub(crate) struct Observations {
    /// The host that is looked at.
    pub(crate) host: String,
    /// Where it is.
    pub(crate) path: PathBuf,
    state: Mutex<State>,
}

struct State {
    lines: Lines,
    runs: Vec<Run>,
    pending: Option<Run>,
    ended: bool,
}

impl Observations {
    /// Begins a new log in this directory.
    pub(crate) fn create(
        directory: &Path,
        durability: Durability,
        name: &str,
        host: &str,
    ) -> anyhow::Result<Self> {
        let path = directory.join(format!("{name}.jsonl"));
        let head = Head { observer: name.to_owned(), host: host.to_owned(), clock: clock::anchor().clone() };
        let lines = Lines::create(path.clone(), durability, &head)?;
        let state = State { lines, runs: Vec::new(), pending: None, ended: false };
        Ok(Self { host: host.to_owned(), path, state: Mutex::new(state) })
    }

    /// Whether a file is such a log, by its first line.
    pub(crate) fn is_one(head: &str) -> bool {
        serde_json::from_str::<Head>(head).is_ok()
    }

    /// Reads a finished log.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Observed> {
        let lines = Lines::read(path)?;
        let (head, rest) = lines.split_first().with_context(|| format!("{} is empty", path.display()))?;
        let head: Head = serde_json::from_str(head).with_context(|| format!("read {}", path.display()))?;
        let mut runs: Vec<Run> = Vec::new();
        for line in rest {
            let run: Run = serde_json::from_str(line).with_context(|| format!("read {}", path.display()))?;
            if !runs.last_mut().is_some_and(|last| last.join(&run)) {
                runs.push(run);
            }
        }
        Ok(Observed { host: head.host, anchor: head.clock, runs })
    }

    /// Adds a look.
    pub(crate) fn add(&self, run: Run) -> anyhow::Result<()> {
        let mut state = self.state.lock().map_err(|_| anyhow::anyhow!("the log is poisoned"))?;
        let State { lines, runs, pending, .. } = &mut *state;
        if !runs.last_mut().is_some_and(|last| last.join(&run)) {
            runs.push(run.clone());
        }
        if let Some(before) = pending {
            if run.ended.saturating_sub(before.began) < LONGEST && before.join(&run) {
                return Ok(());
            }
            lines.add(before)?;
        }
        *pending = Some(run);
        Ok(())
    }

    /// Says that there will be no more looks.
    pub(crate) fn finish(&self) -> anyhow::Result<()> {
        let mut state = self.state.lock().map_err(|_| anyhow::anyhow!("the log is poisoned"))?;
        if let Some(last) = state.pending.take() {
            state.lines.add(&last)?;
        }
        state.ended = true;
        state.lines.sync()
    }

    /// Whether there will be no more.
    pub(crate) fn ended(&self) -> bool {
        self.state.lock().is_ok_and(|state| state.ended)
    }

    /// What was seen between these times.
    pub(crate) fn observed(&self, from: u64, to: u64) -> Observed {
        let runs = self.state.lock().map_or_else(
            |_| Vec::new(),
            |state| state.runs.iter().filter(|run| run.ended >= from && run.began <= to).cloned().collect(),
        );
        Observed { host: self.host.clone(), anchor: clock::anchor().clone(), runs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_looks_are_one_run_in_memory_and_read_back_as_one() {
        let directory = tempfile::tempdir().unwrap();
        let log = Observations::create(directory.path(), Durability::Each, "observe_1", "pg-0").unwrap();
        let look =
            |listener, role| Look { listener, role, server: None, port: None, timeline: None, code: None };
        let looks = [
            (0, look(Listener::Up, Role::Master)),
            (50_000, look(Listener::Up, Role::Master)),
            (1_100_000, look(Listener::Up, Role::Master)),
            (1_150_000, look(Listener::Refused, Role::Unknown)),
            (1_200_000, look(Listener::Timeout, Role::Unknown)),
        ];
        for (began, seen) in looks {
            let ended = began + 1000;
            log.add(Run { began, first_ended: ended, last_began: began, ended, wall: 7, looks: 1, seen })
                .unwrap();
        }
        log.finish().unwrap();
        let observed = log.observed(0, u64::MAX);
        assert_eq!(observed.runs.iter().map(|run| run.looks).collect::<Vec<_>>(), [3, 1, 1]);
        assert_eq!(Observations::read(&log.path).unwrap(), observed);
        assert_eq!(log.observed(1_150_500, 1_160_000).runs.len(), 1);
    }
}
