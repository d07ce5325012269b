//! Everything there is in one world of the model.
//!
//! One atomic step of the model is one decision with one of its acts, or one act of PostgreSQL, the network, the API
//! server, a client or fate. There is no time in it: whatever a decision waits for may have passed.

use std::sync::Arc;

use crate::bound::Bound;
use crate::log::{Entry, Log};
use crate::record::{Electorate, Quorum, Record, Term};
use crate::truth::Broken;
use crate::who::{Each, Set, Who};

/// The recorded leader, in the life that was checked: `primary_conninfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Who.
    pub member: Who,
    /// In which life.
    pub boot: u8,
    /// Leading which epoch.
    pub epoch: u8,
}

/// A server out of recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Primary {
    /// The end of this start's first record.
    pub first: u8,
    /// Names that every process uses, or used until now.
    pub names: Quorum,
    /// Names on their way in: some processes use them already (P13).
    pub next: Option<Quorum>,
    /// The end of the log when the names came in force: the least that an agent can have read since.
    pub since: u8,
    /// Clients are admitted.
    pub open: bool,
}

/// What Postgres does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Server {
    /// It does not run.
    #[default]
    Down,
    /// In recovery.
    Standby {
        /// Whom it streams from, or tries to.
        upstream: Option<Upstream>,
    },
    /// A promotion runs: names are set, the end of recovery has not come.
    Promoting {
        /// To this timeline.
        timeline: u8,
        /// With these names.
        names: Quorum,
    },
    /// Out of recovery.
    Primary(Primary),
}

/// The stream of a standby, as both its ends see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    /// From this member's present Postgres.
    pub from: Who,
    /// What the standby has flushed while it was connected; the last reply says so.
    pub flushed: u8,
    /// The last reply that arrived.
    pub replied: u8,
    /// The standby is still there; else its master has not noticed, and the last reply may still be on its way.
    pub open: bool,
}

/// A seal report, as it was announced once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Report {
    /// The seal.
    pub below: u8,
    /// The timeline of the end of the log.
    pub timeline: u8,
    /// The end of the log.
    pub end: u8,
    /// The life that gave it.
    pub boot: u8,
    /// The epoch as whose ended leader it was given.
    pub released: Option<u8>,
}

/// Proof of a won swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Of this epoch.
    pub epoch: u8,
    /// With this timeline.
    pub timeline: u8,
}

/// One member: its volume, its pod, its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Member {
    /// The life of its pod.
    pub boot: u8,
    /// Promise: nothing below this epoch is acknowledged.
    pub sealed: u8,
    /// Promise: the last epoch followed or led.
    pub last_epoch: u8,
    /// Promise: its timeline.
    pub last_timeline: u8,
    /// Promise: a rewind began and did not end.
    pub rewinding: bool,
    /// Promise: the record of that epoch, by number in the world's list.
    pub last_record: Option<u8>,
    /// The log.
    pub log: Log,
    /// The control file's timeline.
    pub control: u8,
    /// Stopped cleanly.
    pub clean: bool,
    /// In recovery when it ran last.
    pub was_standby: bool,
    /// Its Postgres.
    pub server: Server,
    /// Its stream.
    pub stream: Option<Stream>,
    /// The record as the agent knows it, by number.
    pub known: Option<u8>,
    /// A swap of this agent that took effect and was not answered yet, by the number of the record it made.
    pub unanswered: Option<u8>,
    /// A proof not consumed yet.
    pub token: Option<Token>,
    /// Stopped to be rewound to the leader of this epoch.
    pub to_rewind: Option<u8>,
    /// A report of this member that is no longer what it would say, and that somebody may still go by.
    pub outlived: Option<Report>,
}

impl Member {
    /// Its Postgres as a master.
    pub const fn primary(&self) -> Option<&Primary> {
        match &self.server {
            Server::Primary(primary) => Some(primary),
            _ => None,
        }
    }

    /// The same, to change.
    pub const fn primary_mut(&mut self) -> Option<&mut Primary> {
        match &mut self.server {
            Server::Primary(primary) => Some(primary),
            _ => None,
        }
    }

    /// Whom its Postgres is told to stream from, when it recovers.
    pub const fn upstream(&self) -> Option<Upstream> {
        match self.server {
            Server::Standby { upstream } => upstream,
            _ => None,
        }
    }

    /// It streams now.
    pub fn streaming(&self) -> bool {
        self.stream.is_some_and(|stream| stream.open)
    }
}

/// What fate and clients have done; bounded by [`Bound`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Spent {
    /// Crashes of any kind.
    pub crashes: u8,
    /// Commits that clients began.
    pub writes: u8,
    /// Electorate changes that began.
    pub changes: u8,
}

/// One state of the world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The members; those that the bound leaves out stay as they are by default.
    pub members: Each<Member>,
    /// The record's contents in the order in which they were made, as far as anybody knows them; the last is the truth.
    pub records: Vec<Arc<Record>>,
    /// What somebody may rely on: acknowledged, or readable by a client.
    pub relied: Log,
    /// Timelines that were promoted to, a bit each.
    pub timelines: u16,
    /// What was done so far.
    pub spent: Spent,
    /// An invariant that the last step broke.
    pub broken: Option<Broken>,
}

impl State {
    /// A healthy cluster in epoch 1: `pg-0` leads with an open gate, the others stream.
    pub fn healthy(bound: &Bound) -> Self {
        let standbys: Set = Who::first(bound.members).filter(|who| *who != Who::A).collect();
        let acks = bound.acks.min(u8::try_from(standbys.len()).unwrap_or(0));
        let record = Record {
            epoch: 1,
            leader: Who::A,
            boot: 1,
            timeline: 1,
            fork: None,
            electorates: vec![Electorate { members: standbys, acks, leader: Who::A }],
            committed: true,
            terms: vec![Term { timeline: 1, fork: None }],
        };
        let mut log = Log::default();
        let _ = log.push(Entry { id: 1, timeline: 1 });
        let member = |who: Who| {
            if who.ordinal() as usize >= bound.members {
                return Member::default();
            }
            let leads = who == Who::A;
            Member {
                boot: 1,
                last_epoch: 1,
                last_timeline: 1,
                last_record: Some(0),
                log,
                control: 1,
                was_standby: !leads,
                server: if leads {
                    let names = Quorum { members: standbys, acks };
                    Server::Primary(Primary { first: 1, names, next: None, since: 1, open: true })
                } else {
                    Server::Standby { upstream: Some(Upstream { member: Who::A, boot: 1, epoch: 1 }) }
                },
                stream: (!leads).then_some(Stream { from: Who::A, flushed: 1, replied: 1, open: true }),
                known: Some(0),
                ..Member::default()
            }
        };
        let mut state = Self {
            members: Each::from_fn(member),
            records: vec![Arc::new(record)],
            relied: log,
            timelines: 1 << 1,
            spent: Spent::default(),
            broken: None,
        };
        state.settle(bound);
        state
    }

    /// The record as the API server has it.
    pub fn record(&self) -> Option<&Arc<Record>> {
        self.records.last()
    }

    /// The number of that.
    pub fn newest(&self) -> Option<u8> {
        u8::try_from(self.records.len()).ok()?.checked_sub(1)
    }

    /// One of them by number.
    pub fn numbered(&self, number: Option<u8>) -> Option<&Arc<Record>> {
        self.records.get(usize::from(number?))
    }

    /// The canonical form: what no later step can tell apart is made equal.
    pub fn settle(&mut self, bound: &Bound) {
        self.forget_outlived(bound);
        self.forget_records();
        self.renumber_log();
    }

    /// A report that no election of the present epoch or a later one counts. Agents that have an older record may go
    /// by it still, but only to seal, which they may do on a suspicion as well.
    fn forget_outlived(&mut self, bound: &Bound) {
        let epoch = self.record().map_or(0, |record| record.epoch);
        for who in Who::ALL {
            let member = self.members.of_mut(who);
            if bound.rules.fresh_seals && member.outlived.is_some_and(|report| report.below <= epoch) {
                member.outlived = None;
            }
        }
    }

    fn forget_records(&mut self) {
        let newest = self.newest();
        let mut used = vec![false; self.records.len()];
        let mut mark = |number: Option<u8>| {
            if let Some(slot) = number.and_then(|number| used.get_mut(usize::from(number))) {
                *slot = true;
            }
        };
        mark(newest);
        for who in Who::ALL {
            let member = self.members.of_mut(who);
            // Beside a record that is known, an older one on disk says nothing until the agent starts again.
            mark(member.known);
            mark(member.unanswered);
            mark(member.last_record);
        }
        if used.iter().all(|used| *used) {
            return;
        }
        let mut numbers = Vec::with_capacity(used.len());
        let mut kept = 0_u8;
        for used in &used {
            numbers.push(kept);
            kept += u8::from(*used);
        }
        let renumber = |number: &mut Option<u8>| {
            *number = number.and_then(|old| numbers.get(usize::from(old)).copied());
        };
        for who in Who::ALL {
            let member = self.members.of_mut(who);
            renumber(&mut member.known);
            renumber(&mut member.unanswered);
            renumber(&mut member.last_record);
        }
        let mut used = used.into_iter();
        self.records.retain(|_| used.next().unwrap_or(true));
    }

    fn renumber_log(&mut self) {
        let mut numbers = [0_u8; 64];
        let mut next = 1_u8;
        let [a, b, c] = &mut self.members.0;
        for log in [&mut a.log, &mut b.log, &mut c.log, &mut self.relied] {
            for entry in log.entries_mut() {
                let Some(number) = numbers.get_mut(usize::from(entry.id)) else { continue };
                if *number == 0 {
                    *number = next;
                    next += 1;
                }
                entry.id = *number;
            }
        }
    }

    /// An id that no record has.
    pub fn free_id(&self) -> u8 {
        let highest = Who::ALL.into_iter().flat_map(|who| self.members.of(who).log.entries());
        highest.chain(self.relied.entries()).map(|entry| entry.id).max().unwrap_or(0) + 1
    }
}
