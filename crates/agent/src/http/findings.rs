//! What a user should know and may mend: shown in `/status`, counted in metrics, told once as an Event.

use serde::Serialize;

use crate::peers::Notes;

/// Directories that the resource's schema has room for.
const KEPT: usize = 16;

/// What was found at the last look.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// P15, the leader only: roles and databases whose commits wait for less than the cluster promises.
    pub lowered_durability: Vec<String>,
    /// P15: what somebody's `ALTER SYSTEM` had changed of the protocol's settings, or what is in force against them.
    pub foreign_settings: Vec<String>,
    /// Diverged WAL that is kept aside until the user deletes its directory (§4 step 10).
    pub diverged_wal: Vec<DivergedWal>,
}

impl Findings {
    /// What the others, and through the leader the resource's status, should know.
    pub(crate) fn notes(&self) -> Notes {
        let kept = |kept: &DivergedWal| api::KeptWal {
            path: kept.path.clone(),
            bytes: i64::try_from(kept.bytes).unwrap_or(i64::MAX),
        };
        Notes { diverged_wal: self.diverged_wal.iter().take(KEPT).map(kept).collect() }
    }
}

/// One directory of diverged WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DivergedWal {
    /// Where it is on the volume.
    pub path: String,
    /// What it takes.
    pub bytes: u64,
    /// Where it left the leader's log, when known.
    pub fork: Option<String>,
    /// All that had diverged is there; none when nobody can tell.
    pub complete: Option<bool>,
}
