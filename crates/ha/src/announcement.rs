//! What members tell each other, whole, every 200 ms and at every change (§4 step 1).
//!
//! One message for everything: heartbeat, suspicion, seal report, release, confirmation. It is a statement of
//! state, never a request, so loss, repetition and reordering (dropped by `sent_at` within one boot) do no harm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{Boot, Epoch, Instant, Lsn, MemberId, MemberName, Position, Timeline};

/// How often an agent announces itself without any change.
pub const HEARTBEAT: std::time::Duration = std::time::Duration::from_millis(200);

/// A durable seal and the end of the log behind it (I2). Stays valid when its member dies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealReport {
    /// The member acknowledges nothing of an epoch below this one.
    pub sealed_below: Epoch,
    /// The end of its local log.
    pub position: Position,
}

/// What a member's Postgres is doing, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Condition {
    /// The agent does not know.
    Unknown,
    /// There is no data directory: it wants to clone.
    Empty,
    /// Cloning from the leader.
    Cloning,
    /// Not running, with data.
    Stopped,
    /// Recovering, not yet answering.
    Starting,
    /// A hot standby.
    Standby,
    /// Out of recovery with a closed gate.
    Promoted,
    /// Out of recovery with an open gate.
    Leading,
}

/// The receipt of somebody's announcement, by the clock of the one who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Echo {
    /// The boot of the sender that is echoed.
    pub boot: Boot,
    /// `sent_at` of the newest announcement received from it.
    pub sent_at: Instant,
}

/// The whole state of one member as far as others need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// Who speaks.
    pub member: MemberId,
    /// Its pod's UID.
    pub pod_uid: String,
    /// Its supervisor's boot.
    pub boot: Boot,
    /// Its pod's address, for streaming from it and reaching its agent (K5: never DNS).
    pub address: String,
    /// When it was sent, on the speaker's clock: orders one boot's announcements, and comes back in echoes.
    pub sent_at: Instant,
    /// The newest epoch of the record that it has seen.
    pub record_epoch: Epoch,
    /// What its Postgres is doing.
    pub condition: Condition,
    /// The epoch it leads, when the record names this very boot of it and its Postgres is out of recovery.
    pub leads: Option<Epoch>,
    /// Its timeline, when known.
    pub timeline: Option<Timeline>,
    /// Its promise: it acknowledges nothing of an epoch below this one.
    pub sealed_below: Epoch,
    /// Its seal's report, once the end of its log is known; withdrawn when it follows again.
    pub report: Option<SealReport>,
    /// The epoch whose leader it suspects; stands for "I would seal if enough others would" (pre-vote).
    pub suspects: Option<Epoch>,
    /// It leads by the record but its Postgres is gone: elect without waiting for silence (`released`).
    pub released: bool,
    /// It is being terminated: no target of a hand-over.
    pub terminating: bool,
    /// It streams from this member.
    pub streams_from: Option<MemberId>,
    /// The end of what it has flushed, for display and lag.
    pub flushed: Option<Lsn>,
    /// The leader only: the control file shows the record's timeline, so others may rewind from it (§4 step 10).
    pub rewind_source: bool,
    /// The newest announcement received from each peer.
    pub echoes: BTreeMap<MemberName, Echo>,
}
