//! The one record that arbitrates: a typed whole, kept as JSON in an annotation of the cluster's Lease (§2, K20).
//!
//! It is changed only by compare-and-swap on the Lease's `resourceVersion` of the very snapshot that a decision
//! was made on. Agents never create it; missing means *unknown*, never *free*.

use serde::{Deserialize, Serialize};

use crate::electorate::Electorate;
use crate::types::{Boot, Epoch, Incarnation, Lsn, MemberId, MemberName, Position, Timeline};

/// Entries of history that a record keeps (K20).
pub const HISTORY_KEPT: usize = 64;

/// Whether the cluster has ever had data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Made by the controller; nobody has run initdb under this record yet.
    Uninitialised,
    /// A leader was recorded once. Never goes back.
    Running,
}

/// A leader: a member, and the very life of the very pod in which it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaderId {
    /// The pod's name.
    pub name: MemberName,
    /// The pod's UID.
    pub pod_uid: String,
    /// The supervisor's boot.
    pub boot: Boot,
    /// The volume's incarnation.
    pub incarnation: Incarnation,
    /// The node's name: a new boot may lead on only where the volume's lock excludes the old one.
    pub node: String,
    /// This life has stopped its Postgres cleanly, sealed itself and leads no more: a later life may lead on wherever
    /// it holds the volume's lock. Written as the last act of a leader that ends without a successor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
}

impl LeaderId {
    /// The leader as a member of the electorate.
    pub fn member(&self) -> MemberId {
        MemberId { name: self.name.clone(), incarnation: self.incarnation }
    }
}

/// A planned change of leader that has been announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handover {
    /// The wanted successor; none: whoever holds everything.
    pub to: Option<MemberName>,
}

/// One past or present term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The term.
    pub epoch: Epoch,
    /// Its timeline.
    pub timeline: Timeline,
    /// Where its timeline left its parent; none for the first, and for a term that went on with a timeline.
    pub fork_lsn: Option<Lsn>,
    /// The timeline that it left there: not always the one of the term before, which may have come to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Timeline>,
}

/// A term that a human forced: what it may have lost. Kept for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataLoss {
    /// The term that was forced.
    pub epoch: Epoch,
    /// The member that was promoted.
    pub member: MemberId,
    /// What it held: nothing acknowledged after this is in the log of any later leader.
    pub kept: Position,
    /// The leader of the term before, whose copy counts as diverged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<MemberName>,
    /// How far the copies that were heard of reached beyond `kept`, in bytes: at least so much is lost. None: no other
    /// copy was heard of in that term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_bytes: Option<u64>,
}

/// The whole record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Whether the cluster has ever had data.
    pub phase: Phase,
    /// UID of the PostgresCluster that it was first made for.
    pub cluster_uid: String,
    /// The Lease's own UID, written by the first compare-and-swap: a re-created Lease shows (K20).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_uid: Option<String>,
    /// PostgreSQL's system identifier, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<u64>,
    /// Counts the writes of this record: whoever has seen a higher one knows that this one was put back. 0: written
    /// by an agent that does not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// The current term; 0 before the first.
    pub epoch: Epoch,
    /// The leader of the term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<LeaderId>,
    /// The leader's timeline: above every timeline ever recorded when it was won by a promotion.
    pub timeline: Timeline,
    /// Where `timeline` forked from its parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_lsn: Option<Lsn>,
    /// An election must satisfy all of them, a commit the newest one (§6).
    pub electorates: Vec<Electorate>,
    /// A planned change of leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
    /// The next transaction id when the term's gate first opened (§4 step 8). None: the term is not committed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_xid: Option<u64>,
    /// The last terms, oldest first, at most [`HISTORY_KEPT`].
    #[serde(default)]
    pub history: Vec<HistoryEntry>,
    /// How many terms there ever were.
    #[serde(default)]
    pub history_count: u64,
    /// In asynchronous mode how long this record gives authority after each renewal, in milliseconds; absent in quorum mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_millis: Option<u64>,
    /// The newest term that a human forced. Never cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_loss: Option<DataLoss>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Record {
    /// The record as the controller makes it, once, for a cluster with this UID.
    pub fn uninitialised(cluster_uid: impl Into<String>) -> Self {
        Self {
            phase: Phase::Uninitialised,
            cluster_uid: cluster_uid.into(),
            lease_uid: None,
            system_identifier: None,
            generation: 0,
            epoch: Epoch(0),
            leader: None,
            timeline: Timeline(0),
            fork_lsn: None,
            electorates: Vec::new(),
            handover: None,
            fence_xid: None,
            history: Vec::new(),
            history_count: 0,
            lease_millis: None,
            data_loss: None,
        }
    }

    /// Whether this one was written before that one, as far as the two tell: by epoch, then by generation.
    pub fn is_older_than(&self, other: &Self) -> bool {
        is_older((self.epoch, self.generation), (other.epoch, other.generation))
    }

    /// Whether this one may take the place of `kept` as the newest that a member has seen.
    pub fn supersedes(&self, kept: &Self) -> bool {
        !self.is_older_than(kept) && !self.contradicts(kept)
    }

    /// Whether the two claim to be the same write and say different things: one was edited by hand. The Lease's UID
    /// does not count, which a writer may not have known.
    pub fn contradicts(&self, other: &Self) -> bool {
        let same_write =
            self.generation > 0 && (self.epoch, self.generation) == (other.epoch, other.generation);
        same_write && *self != Self { lease_uid: self.lease_uid.clone(), ..other.clone() }
    }

    /// The electorate in force on the leader: the newest.
    pub fn current_electorate(&self) -> Option<&Electorate> {
        self.electorates.last()
    }

    /// The highest timeline that any term ever had; a new leader's must be above it (I11).
    pub fn highest_timeline(&self) -> Timeline {
        self.history.iter().map(|entry| entry.timeline).max().unwrap_or_default().max(self.timeline)
    }

    /// Whether this member is the recorded leader, in any life.
    pub fn names(&self, member: &MemberId) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.member() == *member)
    }

    /// Adds an electorate as the newest one, once: equal ones are merged (§2).
    pub fn widen(&mut self, electorate: Electorate) {
        self.electorates.retain(|known| *known != electorate);
        self.electorates.push(electorate);
    }

    /// Adds the present term to the history and forgets what is older than [`HISTORY_KEPT`] terms. `parent` is the
    /// timeline that it left; none for the first term and for one that goes on with its timeline.
    pub fn remember_term(&mut self, parent: Option<Timeline>) {
        self.history.push(HistoryEntry {
            epoch: self.epoch,
            timeline: self.timeline,
            fork_lsn: parent.and(self.fork_lsn),
            parent,
        });
        self.history_count += 1;
        let surplus = self.history.len().saturating_sub(HISTORY_KEPT);
        self.history.drain(..surplus);
    }
}

/// Whether the first of two (epoch, generation) was written before the second. A generation of 0 says nothing.
pub(crate) fn is_older(one: (Epoch, u64), other: (Epoch, u64)) -> bool {
    one.0 < other.0 || (one.0 == other.0 && one.1 > 0 && one.1 < other.1)
}
