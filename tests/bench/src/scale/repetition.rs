//! One repetition: an operator is started anew, works through everything, rests, and is given edits.

use std::time::{Duration, Instant};

use anyhow::Result;
use controller::world::World;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::edits;
use super::operator::Installed;
use super::stand_ins::StandIns;
use crate::process::{self, Memory};

/// From the last object applied to the begin of the rest: statuses and Events are still written, and what was called
/// for meanwhile is looked at once more.
const SETTLE: Duration = Duration::from_secs(15);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    /// When.
    pub(super) at: String,
    /// Size of the operator's program, in bytes: which build it was.
    pub(super) program_bytes: u64,
    /// How many clusters there were.
    pub(super) clusters: u32,
    /// Members of each.
    pub(super) instances: u32,
    /// From its start to its leadership, in milliseconds.
    pub(super) leads_ms: u64,
    /// From its start to the last object of the last cluster applied, in milliseconds.
    pub(super) applied_ms: u64,
    /// How long nothing happened, in seconds.
    pub(super) rest_seconds: u64,
    /// Memory at the end of that, in KiB.
    pub(super) at_rest: Memory,
    /// Computing time meanwhile, in milliseconds.
    pub(super) computed_ms: u64,
    /// Requests to the API server meanwhile.
    pub(super) requests: u64,
    /// How often a cluster was looked at meanwhile.
    pub(super) reconciliations: u64,
    /// From each edit to its effect, in milliseconds.
    pub(super) edits_ms: Vec<f64>,
    /// Memory after the edits, in KiB.
    pub(super) at_end: Memory,
}

impl Line {
    /// Requests per minute and cluster at rest.
    pub(super) fn requests_per_minute(&self) -> f64 {
        self.requests as f64 * 60.0 / self.rest_seconds as f64 / f64::from(self.clusters)
    }

    /// Cores that were busy at rest.
    pub(super) fn cores(&self) -> f64 {
        process::cores(Duration::from_millis(self.computed_ms), Duration::from_secs(self.rest_seconds))
    }

    /// For people who wait.
    pub(super) fn told(&self) -> String {
        let slowest = self.edits_ms.iter().copied().fold(0.0, f64::max);
        format!(
            "leads after {} ms, all applied after {} ms; {:.1} MiB, {:.2} % of a core and {:.2} requests per minute and cluster at rest; slowest edit {slowest:.0} ms",
            self.leads_ms,
            self.applied_ms,
            self.at_rest.resident as f64 / 1024.0,
            self.cores() * 100.0,
            self.requests_per_minute(),
        )
    }
}

/// Measures once.
pub(super) async fn once(
    installed: &Installed,
    world: &World,
    stand_ins: &StandIns,
    rest: Duration,
    count: u32,
) -> Result<Line> {
    let clusters = u32::try_from(stand_ins.names().len()).unwrap_or(u32::MAX);
    let operator = installed.start()?;
    let leads = operator.leads().await?;
    let applied = operator.applied(clusters).await?;
    tokio::time::sleep(SETTLE).await;

    let (before, computed, begun) =
        (operator.numbers().await?, process::computed(operator.pid())?, Instant::now());
    tokio::time::sleep(rest).await;
    let after = operator.numbers().await?;
    let computed = process::computed(operator.pid())?.saturating_sub(computed);
    // The machine may have been late to wake us.
    let computed = computed.mul_f64(rest.as_secs_f64() / begun.elapsed().as_secs_f64());
    let at_rest = process::memory(operator.pid())?;

    let edits = edits::edit(world, stand_ins.names(), count).await?;
    let at_end = process::memory(operator.pid())?;
    operator.end().await?;
    Ok(Line {
        at: Timestamp::now().to_string(),
        program_bytes: super::size_of(installed.program()),
        clusters,
        instances: stand_ins.instances(),
        leads_ms: milliseconds(leads),
        applied_ms: milliseconds(applied),
        rest_seconds: rest.as_secs(),
        at_rest,
        computed_ms: milliseconds(computed),
        requests: after.requests(&[]).saturating_sub(before.requests(&[])),
        reconciliations: after.reconciliations().saturating_sub(before.reconciliations()),
        edits_ms: edits.iter().map(|it| (it.as_secs_f64() * 10_000.0).round() / 10.0).collect(),
        at_end,
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
