//! The record, in as few bytes as the search can do with, and its way from and to the real one.
//!
//! Left out is what no decision in the model depends on: node names (each member has its own), UIDs, the number and
//! the epochs of past terms, and terms that went on with a timeline (they change neither the path of timelines nor
//! the highest one).

use std::sync::Arc;

use ha::{Boot, Epoch, HistoryEntry, LeaderId, Lsn, Names, Phase, Timeline};

use crate::who::{Set, Who};

/// An electorate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Electorate {
    /// The standbys.
    pub members: Set,
    /// w.
    pub acks: u8,
    /// The leader in whose term it was made.
    pub leader: Who,
}

impl Electorate {
    /// Whether these flushers let a commit through.
    pub fn acknowledged_by(&self, flushed: Set) -> bool {
        self.members.iter().filter(|who| flushed.contains(*who)).count() >= usize::from(self.acks)
    }

    /// Whether these sealed members satisfy it: its leader, or N − w + 1 of its standbys.
    pub fn satisfied_by(&self, sealed: Set) -> bool {
        let seals = self.members.iter().filter(|who| sealed.contains(*who)).count();
        sealed.contains(self.leader)
            || (self.acks > 0 && seals > self.members.len().saturating_sub(usize::from(self.acks)))
    }
}

/// `synchronous_standby_names`: so many of these; nobody for a leader that commits alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Quorum {
    /// Whose flush counts.
    pub members: Set,
    /// How many of them.
    pub acks: u8,
}

impl Quorum {
    /// As the real one.
    pub fn names(self) -> Names {
        if self.members.is_empty() {
            return Names::Alone;
        }
        Names::Quorum {
            members: self.members.iter().map(Who::incarnation).collect(),
            acks: u32::from(self.acks),
        }
    }

    /// From the real one.
    pub fn of(names: &Names) -> Self {
        match names {
            Names::Quorum { members, acks } => {
                Self { members: members.iter().filter_map(|one| Who::of(*one)).collect(), acks: small(*acks) }
            }
            _ => Self::default(),
        }
    }
}

/// A term that began with a timeline of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Term {
    /// Its timeline.
    pub timeline: u8,
    /// Where it left its parent, and which that was.
    pub fork: Option<(u8, u8)>,
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// The term.
    pub epoch: u8,
    /// Its leader.
    pub leader: Who,
    /// In which life.
    pub boot: u8,
    /// Its timeline.
    pub timeline: u8,
    /// Where that left its parent.
    pub fork: Option<u8>,
    /// Whom an election must satisfy.
    pub electorates: Vec<Electorate>,
    /// The epoch is committed.
    pub committed: bool,
    /// Past terms.
    pub terms: Vec<Term>,
}

impl Record {
    /// The electorate in force.
    pub fn newest(&self) -> Option<Electorate> {
        self.electorates.last().copied()
    }

    /// Whether it names this member in this life.
    pub fn names_life(&self, who: Who, boot: u8) -> bool {
        (self.leader, self.boot) == (who, boot)
    }

    /// As the real one.
    pub fn real(&self) -> ha::Record {
        let mut real = ha::Record::uninitialised("cluster");
        real.phase = Phase::Running;
        real.lease_uid = Some("lease".to_owned());
        real.system_identifier = Some(1);
        real.epoch = epoch(self.epoch);
        real.leader = Some(LeaderId {
            name: self.leader.name(),
            pod_uid: pod_uid(self.leader, self.boot),
            boot: Boot(u64::from(self.boot)),
            incarnation: self.leader.incarnation(),
            node: node(self.leader),
            stopped: false,
        });
        real.timeline = timeline(self.timeline);
        real.fork_lsn = self.fork.map(lsn);
        real.electorates = self
            .electorates
            .iter()
            .map(|one| {
                let members = one.members.iter().map(Who::id).collect();
                ha::Electorate { members, acks: u32::from(one.acks), leader: one.leader.id() }
            })
            .collect();
        real.fence_xid = self.committed.then_some(1);
        real.history = self
            .terms
            .iter()
            .map(|term| HistoryEntry {
                epoch: Epoch(0),
                timeline: timeline(term.timeline),
                fork_lsn: term.fork.map(|(at, _)| lsn(at)),
                parent: term.fork.map(|(_, parent)| timeline(parent)),
            })
            .collect();
        real.history_count = self.terms.len() as u64;
        real
    }

    /// From the real one; nothing when it names somebody that does not exist.
    pub fn of(real: &ha::Record) -> Option<Arc<Self>> {
        let leader = real.leader.as_ref()?;
        let electorates = real
            .electorates
            .iter()
            .map(|one| {
                let members = one.members.iter().filter_map(|id| Who::of(id.incarnation)).collect();
                Some(Electorate { members, acks: small(one.acks), leader: Who::of(one.leader.incarnation)? })
            })
            .collect::<Option<Vec<_>>>()?;
        let terms = real
            .history
            .iter()
            .enumerate()
            .filter(|(n, entry)| *n == 0 || entry.parent.is_some())
            .map(|(_, entry)| Term {
                timeline: small(entry.timeline.0),
                fork: entry.fork_lsn.zip(entry.parent).map(|(at, parent)| (small(at.0), small(parent.0))),
            })
            .collect();
        Some(Arc::new(Self {
            epoch: small(real.epoch.0),
            leader: Who::of(leader.incarnation)?,
            boot: small(leader.boot.0),
            timeline: small(real.timeline.0),
            fork: real.fork_lsn.map(|at| small(at.0)),
            electorates,
            committed: real.fence_xid.is_some(),
            terms,
        }))
    }
}

/// A number that is small in every world of the model; else the greatest one, which the search reports.
pub fn small(number: impl TryInto<u8>) -> u8 {
    number.try_into().unwrap_or(u8::MAX)
}

/// As the real one.
pub fn epoch(number: u8) -> Epoch {
    Epoch(u64::from(number))
}

/// As the real one.
pub fn timeline(number: u8) -> Timeline {
    Timeline(u32::from(number))
}

/// As the real one.
pub fn lsn(end: u8) -> Lsn {
    Lsn(u64::from(end))
}

/// Of this life of this member's pod.
pub fn pod_uid(who: Who, boot: u8) -> String {
    format!("uid-{}-{boot}", who.ordinal())
}

/// A member's pod always runs on the same node.
pub fn node(who: Who) -> String {
    format!("node-{}", who.ordinal())
}
