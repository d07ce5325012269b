//! What an acknowledged write means, and when a master is replaced.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Duration, Size,
    duration::{cel_between, cel_is_duration},
    size::cel_at_least,
};

/// What an acknowledged write means.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Durability {
    /// `quorum`: no acknowledged write is lost in a failover. `async`: at most `maxLag` is.
    #[serde(default)]
    pub mode: DurabilityMode,

    /// How many followers must have a write on disk before it is acknowledged.
    #[serde(default = "default_acks")]
    #[schemars(range(min = 1, max = 15))]
    pub acks: i32,

    /// What happens to writes while too few followers are there.
    #[serde(default)]
    pub when_short: WhenShort,

    /// In mode `async`: how far behind the master a follower may be to take over.
    #[serde(default = "default_max_lag")]
    #[x_kube(validation = Rule::new(cel_at_least("0")).message("durability.maxLag: write a size such as 16Mi"))]
    pub max_lag: Size,
}

impl Default for Durability {
    fn default() -> Self {
        Self {
            mode: DurabilityMode::default(),
            acks: default_acks(),
            when_short: WhenShort::default(),
            max_lag: default_max_lag(),
        }
    }
}

fn default_acks() -> i32 {
    1
}

/// One segment of WAL.
fn default_max_lag() -> Size {
    Size::from_mebibytes(16)
}

/// Whether a commit waits for followers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityMode {
    /// A commit is acknowledged when enough followers have it on disk.
    #[default]
    Quorum,
    /// A commit is acknowledged when the master has it on disk.
    Async,
}

/// What to do without enough followers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenShort {
    /// The master goes on with those that are left; the missing cannot be elected until they are back.
    #[default]
    Continue,
    /// Writes wait.
    Block,
}

/// When a master is replaced, and by whom.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(format!(
        "!({} && {}) || duration(self.shrinkAfter) > duration(self.detection)",
        cel_is_duration("self.shrinkAfter"), cel_is_duration("self.detection")
    ))
        .message("failover.shrinkAfter: must be longer than failover.detection, else the master gives up followers before an election could end")
)]
pub struct Failover {
    /// How long the master must be silent before the others elect.
    #[serde(default = "default_detection")]
    #[x_kube(validation = Rule::new(cel_between("500ms", "60s"))
        .message("failover.detection: write a duration from 500ms to 60s, such as 2s"))]
    pub detection: Duration,

    /// How long a master may go on without hearing from anybody.
    #[serde(default = "default_fence")]
    #[x_kube(validation = Rule::new(cel_between("1s", "60s"))
        .message("failover.fence: write a duration from 1s to 60s, such as 3s"))]
    pub fence: Duration,

    /// With `durability.whenShort: continue`, how long writes wait for missing followers.
    #[serde(default = "default_shrink_after")]
    #[x_kube(validation = Rule::new(cel_between("1s", "10m"))
        .message("failover.shrinkAfter: write a duration from 1s to 10m, such as 5s"))]
    pub shrink_after: Duration,

    /// How long a member's pod may find no node before its volume is given up and it is cloned on another node; never when
    /// left out. A member whose Node is gone or tainted `node.kubernetes.io/out-of-service` does not wait for this. Nothing
    /// is given up while the member's copy may be needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(cel_between("1m", "720h"))
        .message("failover.replaceAfter: write a duration from 1m to 720h, such as 30m; leave it out for never"))]
    pub replace_after: Option<Duration>,

    /// Preference among equally good followers, by pod name; the higher wins, 0 when not named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "priorities")]
    pub priorities: BTreeMap<String, i32>,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            detection: default_detection(),
            fence: default_fence(),
            shrink_after: default_shrink_after(),
            replace_after: None,
            priorities: BTreeMap::new(),
        }
    }
}

fn default_detection() -> Duration {
    Duration::from_secs(2)
}

fn default_fence() -> Duration {
    Duration::from_secs(3)
}

fn default_shrink_after() -> Duration {
    Duration::from_secs(5)
}

fn priorities(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "integer", "format": "int32", "minimum": -1000, "maximum": 1000},
    })
}
