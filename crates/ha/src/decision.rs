//! What to do now, why, and when to look again.
//!
//! Actions are data that carry their preconditions; the driver re-checks them just before the step and drops an
//! action that no longer holds. Nothing here acts.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::record::Record;
use crate::types::{Epoch, Instant, MemberId, Position, Timeline, Version};
use crate::view::{Names, Upstream};

/// Why a compare-and-swap is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// The first leader of an uninitialised cluster.
    Bootstrap,
    /// A won election.
    Win,
    /// A promotion that a human forced, although acknowledged commits may be lost by it.
    Force,
    /// The recorded leader leads on under a higher epoch (I13).
    LeadOn,
    /// The epoch is committed: older electorates go, `fenceXid` is recorded (§4 step 9).
    CommitEpoch,
    /// {old} → {old, new} (§6).
    Widen,
    /// {old, new} → {new} (§6).
    Narrow,
    /// A planned change of leader is announced, or called off.
    Handover,
    /// Asynchronous mode: authority renewed.
    Renew,
}

/// A compare-and-swap that a decision wants: this content, if the Lease still has that version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Swap {
    /// The version of the very snapshot the decision was made on.
    pub expect: Version,
    /// The whole new content.
    pub record: Box<Record>,
    /// Why.
    pub purpose: Purpose,
}

impl Swap {
    /// To be called by the driver when, and only when, the API server has confirmed this swap: by its answer, or by
    /// a fresh read that shows this very content.
    #[must_use]
    pub fn won(self, version: Version) -> FenceToken {
        FenceToken { epoch: self.record.epoch, timeline: self.record.timeline, version }
    }
}

/// Proof of a won compare-and-swap; nothing else makes one. `Promote` and `StartPrimary` consume it.
#[derive(Debug, PartialEq, Eq, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FenceToken {
    epoch: Epoch,
    timeline: Timeline,
    version: Version,
}

impl FenceToken {
    /// A token of a log that is replayed: for [`crate::log::Replay`] alone, whose decisions nobody carries out.
    pub(crate) fn read(epoch: Epoch, timeline: Timeline, version: Version) -> Self {
        Self { epoch, timeline, version }
    }

    /// The epoch that was won.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The timeline that was recorded with it.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// The record's version right after the win.
    pub fn version(&self) -> &Version {
        &self.version
    }
}

/// How Postgres is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StopMode {
    /// SIGKILL to every process: the only way to fence (§5).
    Immediate,
    /// A clean stop that flushes to the standbys, with a bound, past it immediate.
    Fast,
}

/// One thing to do. The driver does them in order and reports back through the next view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "do")]
pub enum Action {
    /// Run initdb on an empty volume; the promise says `Unrecorded` before, durably.
    Initialise,
    /// Remove a data directory that was never recorded (promise `Unrecorded`, re-checked).
    WipeUnrecorded,
    /// Copy the leader's data onto an empty volume.
    Clone {
        /// From whom.
        from: Upstream,
    },
    /// Rewind a stopped, diverged data directory to the leader's timeline.
    Rewind {
        /// From whom; its control file shows the recorded timeline (I12).
        from: Upstream,
    },
    /// Rebuild a directory whose rewind failed or whose WAL is missing upstream, keeping the diverged WAL aside.
    Reclone {
        /// From whom.
        from: Upstream,
    },
    /// Start with `standby.signal` and without an upstream.
    StartStandby,
    /// Start out of recovery, with a closed gate, under a fresh authority.
    StartPrimary {
        /// The proof.
        fence: FenceToken,
        /// In force before the first commit.
        names: Names,
    },
    /// Stream from this leader; durably remember its epoch first.
    Follow {
        /// Whom.
        upstream: Upstream,
    },
    /// Stop Postgres.
    Stop {
        /// How.
        mode: StopMode,
    },
    /// Seal: stop the stream, make the promise durable, find the end of the log (§4 step 3). A stopped master
    /// only makes the promise durable.
    Seal {
        /// Acknowledge nothing of an epoch below this one.
        below: Epoch,
    },
    /// Try a compare-and-swap.
    Swap(Swap),
    /// Prepare and promote (§4 steps 6 and 7): durable record, closed gate, names, planted history, promotion,
    /// checkpoint.
    Promote {
        /// The proof.
        fence: FenceToken,
        /// The timeline that Postgres must choose.
        timeline: Timeline,
        /// In force before the first commit.
        names: Names,
    },
    /// Put these names in force (rule 7a).
    SetNames {
        /// Which.
        names: Names,
    },
    /// Make slots and replication roles for these members.
    Prepare {
        /// Whom.
        members: BTreeSet<MemberId>,
    },
    /// Create roles, passwords and the first database, once.
    Provision,
    /// Close the gate and end every client session.
    CloseGate,
    /// Admit clients.
    OpenGate,
    /// Point `pgwrite` here, guarded by the epoch; then `pgread`; then labels; then status (§4 step 8, K4).
    Publish {
        /// The epoch.
        epoch: Epoch,
    },
    /// Empty the slices, if they still point here (K3).
    Retract,
}

/// Why a member that a human wants to lead by force does not promote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "refusal")]
pub enum Refusal {
    /// The recorded leader serves: a planned switchover loses nothing.
    LeaderServes,
    /// It may never lead, is being terminated, or its data is half-rewound or not a member's.
    Unfit,
    /// Another member that is there holds more.
    AnotherHoldsMore {
        /// Who.
        member: MemberId,
        /// How far it reaches.
        position: Position,
    },
}

/// Why something is done or not done, with its numbers. Becomes log fields, conditions, Events and `explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "reason")]
#[non_exhaustive]
pub enum Reason {
    /// The record cannot be read.
    RecordUnknown {
        /// Why not.
        why: String,
    },
    /// There is no record: nobody may lead anew.
    RecordMissing,
    /// Something stands that no step of ours makes.
    RecordTampered {
        /// What.
        why: String,
    },
    /// I follow the recorded leader.
    Following {
        /// Whom.
        leader: MemberId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// I lead.
    Leading {
        /// The epoch.
        epoch: Epoch,
    },
    /// The leader is silent.
    LeaderSilent {
        /// For how long.
        millis: u64,
    },
    /// The leader says that its Postgres is gone, or that it hands over.
    LeaderReleased,
    /// Too few others suspect the leader too (pre-vote).
    SuspicionNotShared {
        /// The epoch aimed at.
        epoch: Epoch,
    },
    /// Sealed, and the end of the log is not known yet.
    WaitingForEndOfLog,
    /// The sealed members do not satisfy every electorate yet.
    ElectorateNotSatisfied {
        /// The epoch aimed at.
        epoch: Epoch,
        /// Reports counted.
        reports: usize,
    },
    /// Another sealed member is ahead, or equal and preferred.
    AnotherIsBetter {
        /// Who.
        member: MemberId,
        /// How far it reaches.
        position: Position,
    },
    /// This member wins.
    Electing {
        /// The epoch.
        epoch: Epoch,
        /// Its position.
        position: Position,
    },
    /// The gate stays closed until enough standbys flushed the first record (I13).
    WaitingForQuorumFlush {
        /// How many did.
        flushed: usize,
        /// How many must.
        acks: u32,
    },
    /// The leader has neither confirmations nor the record: it stops itself (§5).
    AuthorityLost {
        /// For how long.
        millis: u64,
    },
    /// The record names another leader, or another life of this one.
    Superseded {
        /// The record's epoch.
        epoch: Epoch,
    },
    /// My log has what the leader's has not.
    Diverged {
        /// How far mine reaches.
        mine: Position,
    },
    /// The electorate changes.
    ElectorateChange {
        /// Members of the new one.
        members: usize,
        /// Its acks.
        acks: u32,
    },
    /// A planned change of leader is under way.
    HandingOver,
    /// The controller is paused: members elect, nobody leaves for its sake.
    Paused,
    /// A human wants this member to lead, whatever is lost by it; it waits for a safe election first.
    ForceWaits {
        /// The epoch that was asked for.
        epoch: Epoch,
    },
    /// The same, and it is not done.
    ForceRefused {
        /// The epoch that was asked for.
        epoch: Epoch,
        /// Why not.
        refusal: Refusal,
    },
    /// This member wins because a human wants it to. What lies beyond its position is lost.
    Forcing {
        /// The new epoch.
        epoch: Epoch,
        /// Its position.
        position: Position,
        /// How much is known to be lost.
        known_bytes: Option<u64>,
    },
    /// Waiting for something, in words.
    Waiting {
        /// For what.
        what: String,
    },
}

/// What to do now, why, and when to look again even if nothing happens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[must_use]
pub struct Decision {
    /// In this order.
    pub actions: Vec<Action>,
    /// One per branch that was taken.
    pub because: Vec<Reason>,
    /// Look again then, if nothing happens before.
    pub wake_at: Option<Instant>,
    /// What to say about suspicion in the next announcement.
    pub suspects: Option<Epoch>,
    /// What to say about the own Postgres in the next announcement: elect without waiting for silence.
    pub released: bool,
    /// What to say to members that must rewind: they may, once the control file shows the timeline too (I12).
    pub rewind_source: bool,
}
