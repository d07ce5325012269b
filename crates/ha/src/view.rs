//! Everything one agent knows at one instant. Built by adapters, never changed by the core.
//!
//! Unknown is a value: a probe that failed, an object that could not be read and a position that nobody
//! measured are told apart from zero, absent and empty.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::announcement::Announcement;
use crate::promise::Promise;
use crate::record::Record;
use crate::settings::Settings;
use crate::types::{
    Boot, Epoch, Incarnation, Instant, Lsn, MemberId, MemberName, Position, Timeline, Version,
};

/// What the agent knows of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum RecordView {
    /// Never read since this agent started, or only errors since.
    Unknown {
        /// What the API server or the network said.
        why: String,
    },
    /// The API server answered that there is none. Unknown, never free.
    Missing,
    /// There is one that is not ours or does not parse, or its spec and annotation differ (K20).
    Tampered {
        /// What is wrong with it.
        why: String,
    },
    /// The newest snapshot.
    #[serde(rename_all = "camelCase")]
    Known {
        /// Its content.
        record: Box<Record>,
        /// The version that a compare-and-swap made on it must name.
        version: Version,
        /// The Lease's UID.
        lease_uid: String,
        /// Start of the newest request that returned this very version (a fresh read, never a watch cache).
        confirmed_at: Instant,
        /// When this observer first saw this version.
        changed_at: Instant,
    },
}

/// The member that a standby streams from, in the very life that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// Who.
    pub member: MemberId,
    /// In which life.
    pub boot: Boot,
    /// Where: the pod's address.
    pub address: String,
    /// Leading which epoch.
    pub epoch: Epoch,
}

/// A Postgres that does not run, with data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// Timeline of the control file.
    pub timeline: Timeline,
    /// It was in recovery when it ran last: a standby.
    pub was_standby: bool,
    /// It was stopped cleanly: the control file says shut down (as master or in recovery).
    pub clean: bool,
    /// A cleanly stopped master's end of the shutdown checkpoint record (P23); none otherwise.
    pub end: Option<Position>,
}

/// A hot standby, or one that recovers far enough to answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standby {
    /// The timeline that it replays.
    pub timeline: Timeline,
    /// Whom its configuration names; none when `primary_conninfo` is empty.
    pub upstream: Option<Upstream>,
    /// Its walreceiver is streaming.
    pub streaming: bool,
    /// Flushed by the walreceiver in this boot of Postgres; none when unknown (a restarted standby does not say, P8).
    pub received: Option<Lsn>,
    /// Replayed.
    pub replayed: Option<Lsn>,
    /// The end of the local log, established by the WAL reader with no receiver and no upstream (§4 step 3c); none
    /// as long as that was not shown.
    pub end: Option<Position>,
}

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Gate {
    /// The agent and replication only; no client session is left.
    Closed,
    /// Everybody the user admits.
    Open,
}

/// `synchronous_standby_names` as surely in force, not as `SHOW` says (rule 7a).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "names")]
pub enum Names {
    /// Nobody knows yet what is in force.
    Unknown,
    /// A value that nobody can satisfy.
    Placeholder,
    /// Empty: the leader commits alone.
    Alone,
    /// These standbys, so many of them.
    Quorum {
        /// Their incarnations.
        members: BTreeSet<Incarnation>,
        /// How many must have flushed.
        acks: u32,
    },
}

/// One row of `pg_stat_replication` whose role and application name agree (I10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Walsender {
    /// State `streaming`.
    pub streaming: bool,
    /// Its flush position; none when NULL (P14).
    pub flushed: Option<Lsn>,
}

/// A Postgres out of recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Primary {
    /// The timeline that it writes.
    pub timeline: Timeline,
    /// The control file's timeline: shows the new one after the first checkpoint of the promotion.
    pub control_timeline: Timeline,
    /// Who may connect.
    pub gate: Gate,
    /// What is in force.
    pub names: Names,
    /// Its own flush position.
    pub flushed: Lsn,
    /// A position at or after the first record that this start as master wrote: what w members must have flushed
    /// before the gate may open (I13).
    pub first_record: Lsn,
    /// The first transaction id that no earlier term used, read since this start (§4 step 8); none when not read yet.
    pub fence_xid: Option<u64>,
    /// Who streams, by incarnation.
    pub walsenders: BTreeMap<Incarnation, Walsender>,
    /// Members whose slot and replication role exist.
    pub prepared: BTreeSet<Incarnation>,
    /// Roles, passwords and the first database exist (or were there already).
    pub provisioned: bool,
}

/// What the agent knows of its own Postgres.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Postgres {
    /// It may run or not, and be anything.
    Unknown {
        /// The probe's error.
        why: String,
    },
    /// There is no usable data directory.
    Absent,
    /// A long act of the driver has the data directory: initdb, clone, rewind.
    Busy {
        /// Which.
        with: String,
    },
    /// It does not run.
    Stopped(Stopped),
    /// It runs and does not answer yet.
    Starting,
    /// It runs in recovery.
    Standby(Standby),
    /// It runs out of recovery.
    Primary(Box<Primary>),
}

/// The last thing heard of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// What it said.
    pub announcement: Announcement,
    /// When it arrived.
    pub heard_at: Instant,
    /// The newest `sent_at` of ours, of this boot, that it has echoed: it had everything it says *after* we had sent
    /// that, so deadlines count from here (§5).
    pub confirmed_at: Option<Instant>,
    /// Its connections were reset and a direct probe was refused since it was last heard.
    pub refused: bool,
}

/// Where the write route points, as far as this agent knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "route")]
pub enum Route {
    /// Not read yet.
    Unknown,
    /// At this very boot of this pod, written under this epoch.
    Here {
        /// The epoch on the slice.
        epoch: Epoch,
    },
    /// Elsewhere or nowhere.
    Elsewhere,
}

/// Everything one agent knows at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Who I am.
    pub member: MemberId,
    /// My pod's UID.
    pub pod_uid: String,
    /// My supervisor's boot.
    pub boot: Boot,
    /// My node.
    pub node: String,
    /// My supervisor holds the volume's lock.
    pub holds_volume_lock: bool,
    /// My pod is being terminated, or somebody asked me to leave.
    pub terminating: bool,
    /// The cluster's wishes.
    pub settings: Settings,
    /// The record.
    pub record: RecordView,
    /// My promise, as it is on disk.
    pub promise: Promise,
    /// My Postgres.
    pub postgres: Postgres,
    /// The others.
    pub peers: BTreeMap<MemberName, Peer>,
    /// Where `pgwrite` points.
    pub route: Route,
    /// A compare-and-swap of ours is under way or its outcome is unknown until the record has been read again.
    pub swapping: bool,
}
