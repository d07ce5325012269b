//! What members tell each other, whole, every 200 ms and at every change (§4 step 1).
//!
//! One message for everything: heartbeat, suspicion, seal report, release, confirmation. It is a statement of
//! state, never a request, so loss, repetition and reordering (dropped by `sent_at` within one boot) do no harm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::decision::Decision;
use crate::promise::Bootstrap;
use crate::types::{Boot, Epoch, Instant, Lsn, MemberId, MemberName, Position, Timeline};
use crate::view::{Gate, Postgres, RecordView, View};

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
#[allow(clippy::struct_excessive_bools, reason = "a statement of state: each is a fact of its own")]
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
    /// The generation of that record; 0: not told.
    #[serde(default)]
    pub record_generation: u64,
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
    /// It leads by the record but its Postgres is gone: elect without waiting for silence (`released`). Only said in
    /// a life that excludes older ones of this volume, so its seal stands for its electorates (§2).
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
    /// An older life of this member may still lead somewhere: its seal does not stand for electorates of its own
    /// former terms, only for those that count it as a standby (§2).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub older_life: bool,
    /// For people only: parameters wait for a restart of its PostgreSQL, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_restart: Option<bool>,
    /// For people only: the newest parameters are refused by its PostgreSQL, in its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_refused: Option<String>,
    /// For people only: the version of its PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// For the operator only: a digest of the certificates and authorities that are in force in it (K10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<String>,
}

/// The report of one's own seal, when it may be given (I2): sealed, and the end of the local log is established.
pub fn seal_report(view: &View) -> Option<SealReport> {
    let promise = &view.promise;
    if promise.sealed_below == Epoch(0) || promise.rewinding || promise.bootstrap != Bootstrap::Member {
        return None;
    }
    let position = match &view.postgres {
        Postgres::Standby(standby) if standby.upstream.is_none() && !standby.streaming => standby.end?,
        // A rewound directory that is not consistent yet has no end, whatever its control file says.
        Postgres::Stopped(stopped) if stopped.clean && promise.catching_up.is_none() => stopped.end?,
        _ => return None,
    };
    Some(SealReport { sealed_below: promise.sealed_below, position })
}

/// Whether an older life of this member, which led with this volume, may still run where nothing excludes it (§2).
pub fn older_life_may_lead(view: &View) -> bool {
    view.promise.led.as_ref().is_some_and(|led| {
        let excluded = view.holds_volume_lock && (led.node == view.node || led.stopped);
        led.boot != view.boot && !excluded
    })
}

impl Announcement {
    /// What to tell the others after a decision was made on this view. `address` is this pod's.
    pub fn compose(view: &View, decision: &Decision, address: &str, sent_at: Instant) -> Self {
        let known = match &view.record {
            RecordView::Known { record, .. } => Some(&**record),
            _ => view.promise.last_record.as_ref(),
        };
        let recorded_life = known.filter(|record| {
            record.names(&view.member)
                && record.leader.as_ref().is_some_and(|leader| leader.boot == view.boot)
        });
        let primary = match &view.postgres {
            Postgres::Primary(primary) => Some(&**primary),
            _ => None,
        };
        let (condition, timeline, flushed) = match &view.postgres {
            Postgres::Unknown { .. } => (Condition::Unknown, None, None),
            Postgres::Absent => (Condition::Empty, None, None),
            Postgres::Busy { .. } => (Condition::Cloning, None, None),
            Postgres::Stopped(stopped) => (Condition::Stopped, Some(stopped.timeline), None),
            Postgres::Starting => (Condition::Starting, None, None),
            Postgres::Standby(standby) => {
                (Condition::Standby, Some(standby.timeline), standby.received.max(standby.replayed))
            }
            Postgres::Primary(primary) => {
                let condition =
                    if primary.gate == Gate::Open { Condition::Leading } else { Condition::Promoted };
                (condition, Some(primary.timeline), Some(primary.flushed))
            }
        };
        let streams_from = match &view.postgres {
            Postgres::Standby(standby) if standby.streaming => {
                standby.upstream.as_ref().map(|upstream| upstream.member.clone())
            }
            _ => None,
        };
        Self {
            member: view.member.clone(),
            pod_uid: view.pod_uid.clone(),
            boot: view.boot,
            address: address.to_owned(),
            sent_at,
            record_epoch: known.map_or(Epoch(0), |record| record.epoch),
            record_generation: known.map_or(0, |record| record.generation),
            condition,
            leads: recorded_life
                .filter(|record| primary.is_some_and(|p| p.timeline == record.timeline))
                .map(|record| record.epoch),
            timeline,
            sealed_below: view.promise.sealed_below,
            report: seal_report(view),
            suspects: decision.suspects,
            released: decision.released,
            terminating: view.terminating,
            streams_from,
            flushed,
            rewind_source: decision.rewind_source
                && recorded_life.is_some_and(|record| {
                    primary.is_some_and(|p| {
                        p.timeline == record.timeline && p.control_timeline == record.timeline
                    })
                }),
            echoes: view
                .peers
                .iter()
                .map(|(name, peer)| {
                    let heard = &peer.announcement;
                    (name.clone(), Echo { boot: heard.boot, sent_at: heard.sent_at })
                })
                .collect(),
            older_life: older_life_may_lead(view),
            // No decision rests on these; the driver fills them in.
            pending_restart: None,
            parameters_refused: None,
            version: None,
            certificates: None,
        }
    }
}
