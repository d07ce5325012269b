//! Memory and computing time of agents and supervisors while nobody writes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use driver::member::Member;
use serde::{Deserialize, Serialize};

use super::pair::Pair;
use crate::process::{self, Memory};

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Idle {
    /// `agent` or `supervisor`.
    pub(super) process: String,
    /// Of the master.
    pub(super) master: bool,
    /// Memory in KiB.
    pub(super) memory: Memory,
    /// Of that, in KiB: what no file is behind.
    pub(super) anonymous: u64,
    /// Cores that were busy for it, of one.
    pub(super) cores: f64,
}

/// Waits for so long and tells of every agent and supervisor.
pub(super) async fn watch(pair: &Pair, master: &str, during: Duration) -> Result<Vec<Idle>> {
    let mut watched = Vec::new();
    for member in &pair.members {
        let supervisor = member.supervisor().with_context(|| format!("{} does not run", member.name))?;
        for (process, pid) in [("supervisor", supervisor), ("agent", agent(member, supervisor)?)] {
            watched.push((member, process, pid, process::computed(pid)?));
        }
    }
    let begun = Instant::now();
    tokio::time::sleep(during).await;
    let during = begun.elapsed();
    watched
        .into_iter()
        .map(|(member, process, pid, before)| {
            let computed = process::computed(pid)?.saturating_sub(before);
            Ok(Idle {
                process: process.to_owned(),
                master: member.name == master,
                memory: process::memory(pid)?,
                anonymous: process::anonymous(pid)?,
                cores: process::cores(computed, during),
            })
        })
        .collect()
}

/// The supervisor's other child but the server.
fn agent(member: &Member, supervisor: u32) -> Result<u32> {
    let mut children = process::children(supervisor)?.into_iter();
    let found =
        children.find(|pid| process::name(*pid).is_some_and(|name| name.starts_with("matriarch-agent")));
    found.with_context(|| format!("{} has no agent", member.name))
}
