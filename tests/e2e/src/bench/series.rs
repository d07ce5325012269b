//! One fault after another, so many times each, on one cluster; every repetition a line.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::Judgement;
use crate::cluster::{Cluster, FORM, HEAL};
use crate::faults::{self, Fault};
use crate::judge;
use crate::scenarios::failover::{bystander, next_epoch};
use crate::world::{World, now};

/// Writes before the fault, so that a gap has a beginning.
const BEFORE: Duration = Duration::from_secs(1);

/// One repetition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    /// What was broken.
    pub(crate) fault: String,
    /// The change of the manifest.
    pub(crate) settings: Value,
    /// When.
    pub(crate) at: String,
    /// The master before.
    pub(crate) from: String,
    /// The master after.
    pub(crate) to: String,
    /// From the fault to a later epoch that is committed, as an observer of the record saw it.
    pub(crate) epoch_ms: u64,
    /// The longest time without an acknowledgement, by kind of connection, in milliseconds.
    pub(crate) gap_ms: BTreeMap<String, u64>,
    /// Acknowledged rows of the repetition, all of which were found.
    pub(crate) acknowledged: u64,
    /// Attempts whose outcome the clients do not know.
    pub(crate) doubtful: u64,
    /// Acknowledged rows that were not found.
    pub(crate) lost: u64,
}

/// Everything in the file; a last line that was cut off is left out.
pub(crate) fn read(file: &Path) -> Result<Vec<Line>> {
    let Ok(opened) = File::open(file) else { return Ok(Vec::new()) };
    let lines = BufReader::new(opened).lines().collect::<std::io::Result<Vec<_>>>();
    let lines = lines.with_context(|| format!("read {}", file.display()))?;
    Ok(lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Measures what is missing in the file.
pub(crate) async fn measure(
    world: &World,
    faults: &[Fault],
    reps: u32,
    settings: &Value,
    file: &Path,
) -> Result<()> {
    let known = read(file)?;
    let missing = |fault: Fault| {
        let there = known.iter().filter(|line| line.fault == fault.name() && line.settings == *settings);
        (reps as usize).saturating_sub(there.count())
    };
    if faults.iter().all(|fault| missing(*fault) == 0) {
        return Ok(());
    }
    let mut out =
        OpenOptions::new().create(true).append(true).open(file).context("open the file of lines")?;
    let namespace = world.namespace("bench").await?;
    let cluster = Cluster::from_example(world, &namespace, "minimal.yaml", settings).await?;
    for fault in faults {
        for rep in 0..missing(*fault) {
            let line = once(world, &cluster, *fault, settings).await?;
            println!(
                "{:<18} {:>3}  {:?} ms, epoch after {} ms",
                line.fault,
                rep + 1,
                line.gap_ms,
                line.epoch_ms
            );
            writeln!(out, "{}", serde_json::to_string(&line)?).context("append a line")?;
            out.sync_data().context("flush a line")?;
        }
    }
    world.remove_namespace(&namespace).await
}

async fn once(world: &World, cluster: &Cluster, fault: Fault, settings: &Value) -> Result<Line> {
    let before = cluster.whole(world, 3, FORM).await?;
    let client = bystander(world, cluster, &before).await?;
    tokio::time::sleep(BEFORE).await;
    let at = Timestamp::now();
    let since = now();
    fault.make(world, cluster, before.master()?).await?;
    let epoch = next_epoch(world, cluster, &before).await?;
    client.resumed(world, now()).await?;
    let window = client.between(world, since, now()).await?;
    faults::mend(world).await?;
    let after = judge::one_master(world, cluster, &client, 3, HEAL).await?;
    let judged = client.count(world, cluster).await?;
    let sum = |count: fn(&Judgement) -> u64| judged.iter().map(count).sum();
    let writers = window.iter().filter(|log| log.mode != "read");
    Ok(Line {
        fault: fault.name().to_owned(),
        settings: settings.clone(),
        at: at.to_string(),
        from: before.leader().unwrap_or_default().to_owned(),
        to: after.leader().unwrap_or_default().to_owned(),
        epoch_ms: u64::try_from(epoch.as_millis()).unwrap_or(u64::MAX),
        gap_ms: writers.map(|log| (log.mode.clone(), log.longest_gap.ms)).collect(),
        acknowledged: sum(|log| log.ok),
        doubtful: sum(|log| log.unknown),
        lost: sum(|log| log.lost),
    })
}
