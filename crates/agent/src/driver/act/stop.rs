//! Stopping Postgres, cleanly or at once.
//!
//! Fencing is always immediate and means every process (§5, P7). A clean stop has a bound and then becomes immediate.

use std::time::Duration;

use ha::StopMode;
use postgres::Session;

use crate::driver::context::Context;
use crate::supervised::Stopped;

/// A clean stop waits for standbys to take the last record; a frozen one is dropped after `wal_sender_timeout` (5 s).
const FAST: Duration = Duration::from_secs(10);
/// The checkpoint before it, so that the one during the stop is short.
const CHECKPOINT: Duration = Duration::from_secs(30);

/// Stops Postgres.
pub(super) async fn stop(context: &Context, mode: StopMode) -> anyhow::Result<()> {
    match mode {
        StopMode::Immediate => context.postmaster.kill_all().await?,
        StopMode::Fast => {
            if let Err(error) = checkpoint(context).await {
                tracing::info!(error = format!("{error:#}"), "no checkpoint before the stop");
            }
            match context.postmaster.stop_fast(FAST).await? {
                Stopped::Killed => tracing::warn!("the clean stop took too long: killed"),
                stopped => tracing::info!(?stopped, "stopped"),
            }
        }
    }
    context.tracked.forget();
    Ok(())
}

async fn checkpoint(context: &Context) -> anyhow::Result<()> {
    let session = Session::open(&context.layout, Duration::from_secs(1)).await?.with_bound(CHECKPOINT);
    Ok(session.batch("checkpoint", "CHECKPOINT").await?)
}
