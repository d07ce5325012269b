//! What has become of a cluster.
//!
//! Two writers share it (K19): the leading agent owns `master`, `epoch`, `timeline`, `members` and `lastFailover`, the
//! operator everything else. Neither applies a field of the other.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What has become of a cluster.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostgresClusterStatus {
    /// The generation that the operator last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The state in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// The pod that accepts writes. Written by the leading agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub master: Option<String>,

    /// The master's term. Written by the leading agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub epoch: Option<i64>,

    /// The timeline of PostgreSQL. Written by the leading agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub timeline: Option<i64>,

    /// Number of members that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<i32>,

    /// Number of members that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_instances: Option<i32>,

    /// Selector of the members' pods, as text, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,

    /// The members as the master sees them, at its last change of role or of membership. Written by the leading agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub members: Vec<MemberStatus>,

    /// The sets of followers that commits and elections count, as in the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub electorates: Vec<ElectorateStatus>,

    /// The last change of master. Written by the leading agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<LastFailover>,

    /// The last promotion that a human forced, and what it gave up. Never cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_data_loss: Option<LastDataLoss>,

    /// PostgreSQL's identifier of the database, decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub system_identifier: Option<String>,

    /// What the operator chose for fields that were left out; new defaults do not change it (K24).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Pinned>,

    /// Conditions: Ready, Progressing, Degraded, QuorumAvailable and others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What the operator chose once.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pinned {
    /// Major version of PostgreSQL.
    pub version: i32,
    /// Image of PostgreSQL, when `spec.image` was ever left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,
    /// Image of the agent, so that an upgrade of the operator restarts no database (K12).
    #[schemars(length(max = 512))]
    pub agent_image: String,
}

/// The state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// The first master is being made.
    Initialising,
    /// All members are there.
    Healthy,
    /// Writes succeed, some member is missing.
    Degraded,
    /// The master is gone and another is being elected.
    FailingOver,
    /// The master is handing over as planned.
    SwitchingOver,
    /// Members are being replaced or restarted for a change.
    Updating,
    /// There is no master and no election can make one.
    NoMaster,
    /// No member runs.
    Stopped,
}

/// The role of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Accepts writes.
    Master,
    /// Follows.
    Replica,
}

/// One member as the master sees it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Name of the pod.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Pool of the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub pool: Option<String>,
    /// Role of the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<MemberRole>,
    /// Timeline that the member is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
    /// Whether the member receives WAL from the master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streaming: Option<bool>,
    /// The member acknowledges nothing of an epoch below this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_below: Option<i64>,
    /// Version of PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
    /// Whether parameters wait for a restart of PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_restart: Option<bool>,
    /// What PostgreSQL says against the wanted parameters; the last good ones are in force meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub parameters_refused: Option<String>,
    /// Digest of the certificates and trusted authorities that are in force in the member. While an authority is being
    /// replaced, the operator waits until each member shows the one of what was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub certificates: Option<String>,
    /// Diverged WAL that is kept aside on the member's volume until its directory is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub diverged_wal: Vec<KeptWal>,
    /// Node of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// Zone of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub zone: Option<String>,
}

/// One directory of diverged WAL.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptWal {
    /// Where it is in the member's pod.
    #[schemars(length(max = 512))]
    pub path: String,
    /// Bytes that it takes.
    pub bytes: i64,
}

/// A set of followers that commits and elections count.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ElectorateStatus {
    /// Names of the followers.
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub members: Vec<String>,
    /// How many of them must have a commit on disk.
    pub acks: i32,
    /// The leader in whose term the set was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub leader: Option<String>,
}

/// A promotion that a human forced, although acknowledged commits could be lost by it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastDataLoss {
    /// The member that was promoted.
    #[schemars(length(max = 63))]
    pub member: String,
    /// The master before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub former: Option<String>,
    /// The epoch that was forced.
    pub epoch: i64,
    /// The timeline of the end of what was kept.
    pub timeline: i64,
    /// The end of what was kept, such as `16/B374D848`.
    #[schemars(length(max = 17))]
    pub lsn: String,
    /// How far other copies that were heard of reached beyond that, in bytes: at least so much was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_bytes: Option<i64>,
}

/// The last change of master.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastFailover {
    /// The former master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub from: Option<String>,
    /// The new master.
    #[schemars(length(max = 63))]
    pub to: String,
    /// Why.
    #[schemars(length(max = 256))]
    pub reason: String,
    /// When the new master opened.
    pub at: Time,
    /// From the first suspicion to the opening, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// Bytes of acknowledged WAL that were lost: none in mode `quorum`, at most `maxLag` in `async`; in a promotion that
    /// was forced, what is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_bytes: Option<i64>,
}
