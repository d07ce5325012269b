//! What the user wants of the protocol, as far as the protocol is concerned.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{Epoch, MemberName};

/// How a commit becomes safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DurabilityMode {
    /// A quorum of standbys flushed it before it is acknowledged.
    Quorum,
    /// Acknowledged at once; a failover may lose up to `max_lag_bytes`, and reports it.
    Async,
}

/// What the leader does when too few standbys are there to acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WhenShort {
    /// After `shrink_after` it goes on with those that are there, if need be alone.
    Continue,
    /// Writes wait until enough standbys are back.
    Block,
}

/// What a human asked for, once: this member is to lead, although acknowledged commits may be lost by it.
///
/// It refers to the term that the human saw, so it can be used at most once: a won promotion, forced or not, ends that
/// term, and so does a leader that serves when it reads the wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forced {
    /// The member that is to lead.
    pub member: MemberName,
    /// The epoch of the record that the human saw; void in every other.
    pub epoch: Epoch,
}

/// The cluster's wishes. Rendered by the controller, kept by each member beside its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// How a commit becomes safe.
    pub mode: DurabilityMode,
    /// Standbys that must have flushed a commit, 1 or more.
    pub acks: u32,
    /// What to do when they are too few.
    pub when_short: WhenShort,
    /// Asynchronous mode: a standby further behind than this many bytes is no candidate.
    pub max_lag_bytes: u64,
    /// Silence after which a standby suspects the leader.
    pub detection: Duration,
    /// Silence after which a leader stops itself.
    pub fence: Duration,
    /// Time without enough standbys after which the electorate shrinks.
    pub shrink_after: Duration,
    /// Asynchronous mode: how long a renewal gives authority; at least 15 s.
    pub lease: Duration,
    /// Preference among equals; higher is better, absent is 0.
    pub priorities: BTreeMap<MemberName, i32>,
    /// The members that may be elected, by name.
    pub electable: BTreeSet<MemberName>,
    /// Members about to be removed or restarted: they hand over when they lead and are not added to an electorate
    /// again while named here.
    pub leaving: BTreeSet<MemberName>,
    /// The controller leaves the cluster alone: what it had asked for in `leaving` is asked for no more. Elections,
    /// and everything that a quorum or a human needs, go on.
    #[serde(default)]
    pub paused: bool,
    /// A promotion that a human forces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<Forced>,
}

impl Settings {
    /// The documented defaults for these electable members.
    pub fn new(electable: impl IntoIterator<Item = MemberName>) -> Self {
        Self {
            mode: DurabilityMode::Quorum,
            acks: 1,
            when_short: WhenShort::Continue,
            max_lag_bytes: 16 << 20,
            detection: Duration::from_secs(2),
            fence: Duration::from_secs(3),
            shrink_after: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            priorities: BTreeMap::new(),
            electable: electable.into_iter().collect(),
            leaving: BTreeSet::new(),
            paused: false,
            forced: None,
        }
    }

    /// Whether the controller wants this member away, and is at work.
    pub fn is_leaving(&self, member: &MemberName) -> bool {
        !self.paused && self.leaving.contains(member)
    }

    /// A member's priority.
    pub fn priority(&self, member: &MemberName) -> i32 {
        self.priorities.get(member).copied().unwrap_or(0)
    }
}
