//! The contract between operator and members: `settings.json` in the ConfigMap `<cluster>-settings`.
//!
//! The operator renders it, each agent watches it by name and keeps the last copy beside PGDATA (K10), so that an agent
//! needs no right to read PostgresClusters. Everything in it is a *wish at level*: reading it once more changes nothing,
//! and no wish can make a member break the protocol. The format is versioned; both sides ignore fields that they do not
//! know, and every field but the identity has a default.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{DurabilityMode, Duration, Init, Size, WhenShort};

/// The version of the format that this code writes. A reader refuses a higher one and keeps its last copy.
pub const FORMAT: u32 = 1;

/// Everything that a member is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberSettings {
    /// The version of this format, [`FORMAT`].
    pub format: u32,
    /// `metadata.generation` of the PostgresCluster that this was rendered from.
    pub generation: i64,
    /// Whose members these are.
    pub cluster: ClusterIdentity,
    /// Major version of PostgreSQL that the image must have.
    pub version: i32,
    /// The members that should exist, by pod name.
    #[serde(default)]
    pub members: BTreeMap<String, MemberPlan>,
    /// Members that are about to stop, for a while or for good. They leave the electorate (a joint change), are no
    /// target of a hand-over, and hand over when they lead. A member in here that is not in `members` leaves for good:
    /// its slot may be dropped.
    #[serde(default)]
    pub handover_away: BTreeSet<String>,
    /// Members whose PostgreSQL should be restarted now *if* parameters wait for that. The operator names one at a time
    /// and takes it back when `status.members[].pendingRestart` is false.
    #[serde(default)]
    pub restart: BTreeSet<String>,
    /// Settings of PostgreSQL, already checked by [`crate::parameters::check_all`].
    #[serde(default)]
    pub postgres: PostgresSettings,
    /// What an acknowledged write means.
    #[serde(default)]
    pub durability: DurabilitySettings,
    /// When the master is replaced.
    #[serde(default)]
    pub failover: FailoverSettings,
    /// Services whose slices the leader writes.
    pub services: ServiceSettings,
    /// How the first master is made, and which role and database the Secret `<cluster>-app` is for.
    #[serde(default)]
    pub init: Init,
    /// `spec.paused`: the operator leaves the cluster alone. Elections go on; what it had asked for in `handover_away`
    /// and `restart` is asked for no more.
    #[serde(default)]
    pub paused: bool,
    /// A promotion that a human forces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote: Option<ForcedPromotion>,
}

/// This member is to lead, although acknowledged commits may be lost by it. Used at most once: the election that it
/// asks for ends the epoch that it names, and so does a master that serves when it reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForcedPromotion {
    /// The member, by pod name.
    pub member: String,
    /// The epoch that the human saw in the status; void in every other.
    pub epoch: u64,
}

/// Whose members these are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterIdentity {
    /// Name of the PostgresCluster.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// UID of the PostgresCluster object that exists now: for owner references and `status`.
    pub uid: String,
    /// The identity of the data: the UID in the record, which is that of the *first* PostgresCluster of this data.
    /// A cluster that was deleted with `Retain` and made again keeps it. Promises and the record are compared with this.
    pub identity: String,
}

/// What a member is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberPlan {
    /// Pool of the member.
    #[serde(default = "default_pool")]
    pub pool: String,
    /// Whether it may be in electorates and become the master.
    #[serde(default = "yes")]
    pub electable: bool,
    /// Whether `pgread` may lead to it.
    #[serde(default = "yes")]
    pub serves_reads: bool,
    /// Preference among equally good candidates, the higher wins.
    #[serde(default)]
    pub priority: i32,
    /// The host name for TLS (K5); never resolved to find the member.
    pub host: String,
    /// The zone of its node, as far as the operator may read Nodes; for the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// Settings of PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PostgresSettings {
    /// Parameters by name, values unquoted.
    pub parameters: BTreeMap<String, String>,
    /// Libraries that are loaded at the start of the server.
    pub shared_preload_libraries: Vec<String>,
    /// Lines of `pg_hba.conf`, after the agent's own and before the default.
    pub hba: Vec<String>,
}

/// What an acknowledged write means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DurabilitySettings {
    /// Whether commits wait.
    pub mode: DurabilityMode,
    /// For how many followers.
    pub acks: u32,
    /// What to do without them.
    pub when_short: WhenShort,
    /// In mode `async`, how far behind a successor may be, in bytes.
    pub max_lag_bytes: u64,
}

impl Default for DurabilitySettings {
    fn default() -> Self {
        Self {
            mode: DurabilityMode::Quorum,
            acks: 1,
            when_short: WhenShort::Continue,
            max_lag_bytes: Size::from_mebibytes(16).as_bytes(),
        }
    }
}

/// When the master is replaced; milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FailoverSettings {
    /// Silence of the master before the others elect.
    pub detection_ms: u64,
    /// How long a master may go on without hearing from anybody.
    pub fence_ms: u64,
    /// How long writes wait for missing followers.
    pub shrink_after_ms: u64,
}

impl Default for FailoverSettings {
    fn default() -> Self {
        Self {
            detection_ms: Duration::from_secs(2).as_millis(),
            fence_ms: Duration::from_secs(3).as_millis(),
            shrink_after_ms: Duration::from_secs(5).as_millis(),
        }
    }
}

/// Services whose slices the leader writes; slices are named by [`crate::names::endpoint_slice`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSettings {
    /// The Service that leads to the master.
    pub write: String,
    /// The Service that leads to the followers.
    pub read: String,
    /// How far behind a follower may be to be listed in `read`, in bytes.
    pub read_max_lag_bytes: u64,
    /// Whether the master is listed in `read` too.
    #[serde(default)]
    pub read_includes_master: bool,
    /// IP families of both Services, `IPv4` and `IPv6`; one slice for each (K2).
    #[serde(default = "default_families")]
    pub families: Vec<String>,
}

fn default_pool() -> String {
    crate::names::DEFAULT_POOL.to_owned()
}

fn default_families() -> Vec<String> {
    vec!["IPv4".to_owned()]
}

fn yes() -> bool {
    true
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not JSON, or a field of another type.
    #[error("settings are not readable")]
    Read(#[source] serde_json::Error),
    /// Written by a newer operator whose meaning is not known.
    #[error("settings have format {found}, this agent knows up to {FORMAT}")]
    Format {
        /// The format found.
        found: u32,
    },
}

impl MemberSettings {
    /// The same, as they are while the operator is paused.
    #[must_use]
    pub fn paused(self) -> Self {
        Self { paused: true, ..self }
    }

    /// Reads `settings.json`.
    pub fn from_json(text: &str) -> Result<Self, SettingsError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_str(text).map_err(SettingsError::Read)?;
        if head.format > FORMAT {
            return Err(SettingsError::Format { found: head.format });
        }
        serde_json::from_str(text).map_err(SettingsError::Read)
    }

    /// Writes `settings.json`.
    pub fn to_json(&self) -> Result<String, SettingsError> {
        serde_json::to_string_pretty(self).map_err(SettingsError::Read)
    }

    /// What this pod is for, when it should exist.
    pub fn member(&self, pod: &str) -> Option<&MemberPlan> {
        self.members.get(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"{"format": 1, "generation": 1, "version": 17, "unknown": true,
        "cluster": {"name": "pg", "namespace": "default", "uid": "u", "identity": "i"},
        "services": {"write": "pg-pgwrite", "read": "pg-pgread", "readMaxLagBytes": 0}}"#;

    #[test]
    fn unknown_and_missing_fields_are_no_error() {
        let settings = MemberSettings::from_json(LEAST).unwrap();
        assert_eq!(settings.failover.detection_ms, 2000);
        assert_eq!(settings.durability.acks, 1);
        assert_eq!(settings.services.families, ["IPv4"]);
        assert_eq!(MemberSettings::from_json(&settings.to_json().unwrap()).unwrap(), settings);
    }

    #[test]
    fn a_newer_format_is_refused_whatever_it_holds() {
        let error = MemberSettings::from_json(r#"{"format": 2, "cluster": 7}"#).unwrap_err();
        assert!(matches!(error, SettingsError::Format { found: 2 }));
    }
}
