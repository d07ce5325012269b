//! What can be done to a few servers, and what is done to the model for it.
//!
//! Decides when an operation can be done at all. Must never allow what no agent does and PostgreSQL leaves open: two
//! logs with other content on one timeline glued together (I11), a start of a standby whose directory has met another
//! branch's history (P12), standbys of standbys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ha::Names;
use sim::driver::{Doing, Outcome, Seen, Servers};
use sim::misreading::Misreading;

/// `synchronous_standby_names`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Empty.
    Alone,
    /// A standby that does not exist.
    Nobody,
    /// So many of these servers.
    Any(u32, BTreeSet<usize>),
}

/// One operation. Servers are numbers from 0, rows are numbers from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "m, on, of and from are servers; the rest says what it is")]
pub enum Operation {
    /// A client writes a row and commits; a weak commit asks for no standby.
    Write { row: u32, on: usize, weak: bool },
    /// A client writes a row and does not commit.
    Begin { row: u32, on: usize },
    /// It commits after all.
    Commit { row: u32 },
    /// The wait of a commit is cancelled.
    Cancel { row: u32 },
    /// The session of a commit that waits is ended.
    Terminate { row: u32 },
    /// Other names, reloaded.
    Names { on: usize, names: Wanted },
    /// A stop, fast or immediate.
    Stop { m: usize, fast: bool },
    /// Every process is killed.
    Kill { m: usize },
    /// A start without `standby.signal`.
    StartPrimary { m: usize, names: Wanted },
    /// A start with it.
    StartStandby { m: usize, of: Option<usize> },
    /// A running standby streams from another server.
    Follow { m: usize, of: usize },
    /// A running standby streams from nobody.
    Detach { m: usize },
    /// Nothing passes between two servers any more.
    Cut { a: usize, b: usize },
    /// It passes again.
    Mend { a: usize, b: usize },
    /// A promotion, with so many history files planted before (P11).
    Promote { m: usize, above: u32, names: Wanted },
    /// `pg_rewind`.
    Rewind { m: usize, from: usize },
    /// `pg_basebackup`.
    Clone { m: usize, from: usize },
    /// Replay is paused.
    Pause { m: usize },
    /// Replay goes on.
    Resume { m: usize },
    /// The checkpointer of a master is stopped where it is.
    Hold { m: usize },
    /// And goes on.
    Release { m: usize },
    /// Every process of a standby is stopped where it is.
    Freeze { m: usize },
    /// And goes on.
    Thaw { m: usize },
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone => f.write_str("nobody is waited for"),
            Self::Nobody => f.write_str("a stranger is waited for"),
            Self::Any(acks, members) => write!(f, "{acks} of {members:?}"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { row, on, weak: false } => write!(f, "write row {row} on {on}"),
            Self::Write { row, on, .. } => write!(f, "write row {row} on {on} with a local commit"),
            Self::Begin { row, on } => write!(f, "begin row {row} on {on}"),
            Self::Commit { row } => write!(f, "commit row {row}"),
            Self::Cancel { row } => write!(f, "cancel the wait for row {row}"),
            Self::Terminate { row } => write!(f, "terminate the session of row {row}"),
            Self::Names { on, names } => write!(f, "names on {on}: {names}"),
            Self::Stop { m, fast } => write!(f, "stop {m} {}", if *fast { "fast" } else { "immediately" }),
            Self::Kill { m } => write!(f, "kill {m}"),
            Self::StartPrimary { m, names } => write!(f, "start {m} as master; {names}"),
            Self::StartStandby { m, of: Some(of) } => write!(f, "start {m} as standby of {of}"),
            Self::StartStandby { m, of: None } => write!(f, "start {m} as standby of nobody"),
            Self::Follow { m, of } => write!(f, "{m} follows {of}"),
            Self::Detach { m } => write!(f, "{m} follows nobody"),
            Self::Cut { a, b } => write!(f, "cut {a} from {b}"),
            Self::Mend { a, b } => write!(f, "mend the way from {a} to {b}"),
            Self::Promote { m, above, names } => write!(f, "promote {m}, {above} planted; {names}"),
            Self::Rewind { m, from } => write!(f, "rewind {m} to {from}"),
            Self::Clone { m, from } => write!(f, "clone {m} from {from}"),
            Self::Pause { m } => write!(f, "pause the replay of {m}"),
            Self::Resume { m } => write!(f, "resume the replay of {m}"),
            Self::Hold { m } => write!(f, "the checkpointer of {m} stands still"),
            Self::Release { m } => write!(f, "the checkpointer of {m} goes on"),
            Self::Freeze { m } => write!(f, "freeze {m}"),
            Self::Thaw { m } => write!(f, "thaw {m}"),
        }
    }
}

/// The modelled servers, and what only the test knows of them.
#[derive(Debug)]
pub struct Model {
    /// The servers.
    pub servers: Servers,
    /// Rewound or cloned and not started since: the next start must be as a standby that streams.
    fresh: BTreeSet<usize>,
    /// Has tried to stream from another branch (P12) and knows its history.
    strayed: BTreeSet<usize>,
    /// Has led since it was rewound or cloned: what a master writes of itself, nobody counts.
    led: BTreeSet<usize>,
    /// Commits that have ever waited.
    waited: BTreeSet<u32>,
    /// Those of them that had waited before a standby's last start.
    late: BTreeMap<usize, BTreeSet<u32>>,
}

impl Model {
    /// The first server is a master, the others stream from it.
    pub fn new(servers: usize, seed: u64, misreading: Option<Misreading>) -> Self {
        Self {
            servers: Servers::new(servers, seed, misreading),
            fresh: BTreeSet::new(),
            strayed: BTreeSet::new(),
            led: BTreeSet::from([0]),
            waited: BTreeSet::new(),
            late: BTreeMap::new(),
        }
    }

    /// Whether the operation can be done now.
    pub fn allows(&self, operation: &Operation) -> bool {
        let servers = &self.servers;
        let count = servers.count();
        let is = |m: usize, doing: Doing| m < count && servers.doing(m) == doing && !servers.is_frozen(m);
        let names = |on: usize, names: &Wanted| match names {
            Wanted::Any(acks, members) => {
                let known = members.iter().all(|m| *m < count && *m != on);
                known && *acks > 0 && members.len() >= *acks as usize
            }
            Wanted::Alone | Wanted::Nobody => true,
        };
        // What is in flight to a frozen standby when its upstream ends is nobody's promise.
        let holds_frozen =
            |m: usize| (0..count).any(|s| servers.is_frozen(s) && servers.upstream(s) == Some(m));
        let runs = |m: usize| m < count && servers.doing(m) != Doing::Down;
        match operation {
            Operation::Write { on, .. } | Operation::Begin { on, .. } => is(*on, Doing::Primary),
            Operation::Commit { row } => servers.open_on(*row).is_some(),
            Operation::Cancel { row } | Operation::Terminate { row } => {
                servers.outcome(*row) == Some(Outcome::Waits)
            }
            Operation::Names { on, names: wanted } => is(*on, Doing::Primary) && names(*on, wanted),
            Operation::Stop { m, .. } => runs(*m) && !servers.is_frozen(*m) && !holds_frozen(*m),
            Operation::Kill { m } => runs(*m) && !holds_frozen(*m),
            Operation::StartPrimary { m, names: wanted } => {
                is(*m, Doing::Down)
                    && names(*m, wanted)
                    && !self.fresh.contains(m)
                    && !self.strayed.contains(m)
            }
            Operation::StartStandby { m, of: None } => {
                is(*m, Doing::Down) && !self.fresh.contains(m) && !self.strayed.contains(m)
            }
            Operation::StartStandby { m, of: Some(of) } => {
                is(*m, Doing::Down)
                    && is(*of, Doing::Primary)
                    && !servers.diverges(*m, *of)
                    && !self.strayed.contains(m)
                    && (!self.led.contains(m) || servers.data(*m).is_some_and(|data| data.clean))
            }
            Operation::Follow { m, of } => {
                m != of
                    && is(*m, Doing::Standby)
                    && is(*of, Doing::Primary)
                    && !servers.is_paused(*m)
                    && !self.led.contains(m)
            }
            Operation::Detach { m } => is(*m, Doing::Standby) && servers.upstream(*m).is_some(),
            Operation::Cut { a, b } => self.reaches(*a, *b) && servers.linked(*a, *b),
            Operation::Mend { a, b } => self.reaches(*a, *b) && !servers.linked(*a, *b),
            Operation::Promote { m, names: wanted, .. } => is(*m, Doing::Standby) && names(*m, wanted),
            Operation::Rewind { m, from } => {
                let control = |m: usize| servers.data(m).map(|data| data.control);
                m != from
                    && is(*m, Doing::Down)
                    && is(*from, Doing::Primary)
                    && control(*m) != control(*from)
                    // A directory behind the fork is not rewound, it follows; `pg_rewind` would recover it first, and that
                    // writes a checkpoint.
                    && servers.diverges(*m, *from)
                    // What the source has not flushed is missing until it is streamed: nobody starts without.
                    && servers.data(*from).is_some_and(|data| data.wal.flushed == data.wal.end())
                    && !self.fresh.contains(m)
                    && !servers.conflicts(*m, *from)
            }
            Operation::Clone { m, from } => m != from && is(*m, Doing::Down) && is(*from, Doing::Primary),
            Operation::Pause { m } => is(*m, Doing::Standby) && !servers.is_paused(*m),
            Operation::Resume { m } => is(*m, Doing::Standby) && servers.is_paused(*m),
            // Directed sequences only: whatever needs a checkpoint would wait for it.
            Operation::Hold { .. } | Operation::Release { .. } => false,
            Operation::Freeze { m } => is(*m, Doing::Standby),
            Operation::Thaw { m } => *m < count && servers.is_frozen(*m),
        }
    }

    fn reaches(&self, a: usize, b: usize) -> bool {
        let count = self.servers.count();
        a < b && b < count && !self.servers.is_frozen(a) && !self.servers.is_frozen(b)
    }

    /// The names as the model says them.
    pub fn names(&self, wanted: &Wanted) -> Names {
        match wanted {
            Wanted::Alone => Names::Alone,
            Wanted::Nobody => Names::Placeholder,
            Wanted::Any(acks, members) => Names::Quorum {
                members: members.iter().map(|m| self.servers.incarnation(*m)).collect(),
                acks: *acks,
            },
        }
    }

    /// Does it, and lets everything settle.
    pub fn apply(&mut self, operation: &Operation) {
        let of = |wanted: &Wanted| self.names(wanted);
        match operation {
            Operation::Write { row, on, weak } => {
                self.servers.begin(*row, *on);
                self.servers.commit(*row, *weak);
            }
            Operation::Begin { row, on } => self.servers.begin(*row, *on),
            Operation::Commit { row } => self.servers.commit(*row, false),
            Operation::Cancel { row } => self.servers.cancel(*row, false),
            Operation::Terminate { row } => self.servers.cancel(*row, true),
            Operation::Names { on, names } => {
                let names = of(names);
                self.servers.set_names(*on, names);
            }
            Operation::Stop { m, fast: true } => self.servers.stop(*m),
            Operation::Stop { m, fast: false } | Operation::Kill { m } => self.servers.kill(*m),
            Operation::StartPrimary { m, names } => {
                let names = of(names);
                self.servers.start_primary(*m, names);
            }
            Operation::StartStandby { m, of } => {
                self.servers.start_standby(*m, *of);
                self.fresh.remove(m);
                self.late.insert(*m, self.waited.clone());
            }
            Operation::Follow { m, of } => self.servers.follow(*m, *of),
            Operation::Detach { m } => self.servers.detach(*m),
            Operation::Cut { a, b } => self.servers.link(*a, *b, false),
            Operation::Mend { a, b } => self.servers.link(*a, *b, true),
            Operation::Promote { m, above, names } => {
                let names = of(names);
                self.servers.promote(*m, *above, names);
            }
            Operation::Rewind { m, from } => {
                self.servers.rewind(*m, *from);
                self.fresh.insert(*m);
                self.led.remove(m);
                self.strayed.remove(m);
            }
            Operation::Clone { m, from } => {
                self.servers.clone_from(*m, *from);
                self.fresh.insert(*m);
                self.led.remove(m);
                self.strayed.remove(m);
            }
            Operation::Pause { m } => self.servers.pause(*m, true),
            Operation::Resume { m } => self.servers.pause(*m, false),
            Operation::Hold { m } => self.servers.hold_checkpointer(*m, true),
            Operation::Release { m } => self.servers.hold_checkpointer(*m, false),
            Operation::Freeze { m } => self.servers.freeze(*m, true),
            Operation::Thaw { m } => self.servers.freeze(*m, false),
        }
        let waits = |(row, outcome)| (outcome == Outcome::Waits).then_some(row);
        self.waited.extend(self.servers.outcomes().into_iter().filter_map(waits));
        for m in 0..self.servers.count() {
            if self.servers.doing(m) == Doing::Primary {
                self.led.insert(m);
            }
            if self.strays(m) {
                self.strayed.insert(m);
            }
        }
    }

    /// What is seen of a server, given the rows that its reader got.
    ///
    /// A standby that started from a checkpoint during which a commit waited knows that commit, and shows it only after
    /// another transaction has ended: the checkpoint's list of running transactions ends before it.
    pub fn expects(&self, m: usize, read: &BTreeSet<u32>) -> Seen {
        let seen = self.servers.seen(m);
        let late = self.late.get(&m).filter(|_| seen.doing == Doing::Standby);
        let hidden: BTreeSet<u32> =
            late.into_iter().flatten().filter(|row| !read.contains(row)).copied().collect();
        if hidden.is_empty() { seen } else { self.servers.seen_without(m, &hidden) }
    }

    /// Whether it asks for a log that its own does not go on into (P12).
    pub fn strays(&self, m: usize) -> bool {
        self.reachable_upstream(m).is_some_and(|p| self.servers.diverges(m, p))
    }

    /// A running standby's upstream, when it is a master that can be reached.
    fn reachable_upstream(&self, m: usize) -> Option<usize> {
        let p = self.servers.upstream(m)?;
        (self.servers.doing(p) == Doing::Primary && self.servers.linked(m, p)).then_some(p)
    }

    /// False when somebody is about to glue two logs together that differ where no timeline shows it.
    pub fn is_sound(&self) -> bool {
        (0..self.servers.count()).all(|m| {
            let Some(p) = self.servers.upstream(m).filter(|p| self.servers.doing(*p) == Doing::Primary)
            else {
                return true;
            };
            let (Some(ours), Some(theirs)) = (self.servers.data(m), self.servers.data(p)) else {
                return true;
            };
            let beyond = ours.wal.at(ours.wal.common(&theirs.wal) + 1);
            let glued = beyond.is_some_and(|rec| rec.timeline == theirs.wal.timeline().0);
            !glued && !self.servers.conflicts(m, p)
        })
    }
}
