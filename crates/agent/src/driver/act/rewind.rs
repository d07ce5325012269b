//! A stopped, diverged directory becomes a copy of the leader's past.
//!
//! Must never begin before the leader's epoch is committed and its control file shows its timeline (I12, P22), and
//! never leave a touched directory without a durable mark: such a directory is not started (§4 step 10).

use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use ha::{Record, Upstream};
use postgres::command::controldata;
use postgres::command::rewind::{RewindError, Rewound};
use postgres::{Binaries, diverged};

use super::fork::fork;
use super::still_leads;
use crate::driver::context::Context;

/// A rewind copies what changed; at the worst, everything.
const REWIND: Duration = Duration::from_secs(6 * 3600);

/// Reading the control file.
const CONTROL: Duration = Duration::from_secs(10);

/// Rewinds to `from`.
pub(super) async fn rewind(context: &Context, from: &Upstream) -> anyhow::Result<()> {
    ensure!(context.postmaster.now().is_gone(), "PostgreSQL still runs");
    let record = still_leads(context, &from.member, from.epoch).await?;
    ensure!(record.fence_xid.is_some(), "the leader's epoch is not committed yet (I12)");
    let shows = context
        .channel
        .heard()
        .get(&from.member.name)
        .is_some_and(|peer| peer.announcement.boot == from.boot && peer.announcement.rewind_source);
    ensure!(shows, "the leader's control file does not show its timeline yet (P22)");
    super::start::uproot(context).await?;
    let binaries = context.binaries()?;
    keep_diverged(context, &binaries, &record).await?;
    context.promise.update(|promise| promise.rewinding = true).await?;
    let incarnation = context.promise.get().incarnation;
    let upstream = context.upstream(from)?;
    let found =
        match postgres::command::rewind::rewind(&binaries, &context.layout, &upstream, incarnation, REWIND)
            .await
        {
            Err(error @ RewindError::Untouched(_)) => {
                context.promise.update(|promise| promise.rewinding = false).await?;
                return Err(error.into());
            }
            other => other?,
        };
    match found {
        Rewound::From { diverged } => tracing::info!(?diverged, "rewound"),
        Rewound::NotRequired => tracing::info!("no rewind was needed"),
    }
    // Whoever starts it now starts a standby, whatever the source's directory said.
    postgres::follow::make_standby(&context.layout).await?;
    context
        .promise
        .update(move |promise| {
            promise.catching_up = Some(record.timeline);
            promise.rewinding = false;
        })
        .await?;
    *context.catch_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(from.clone());
    Ok(())
}

/// What the rewind throws away is kept before it begins, and told until the user lets it go (§4 step 10). In asynchronous
/// mode it may be the only copy of what clients were told: when it cannot be kept there is no rewind. In quorum mode
/// nothing that was acknowledged is in it, and a member that cannot come back would be worse.
async fn keep_diverged(context: &Context, binaries: &Binaries, record: &Record) -> anyhow::Result<()> {
    let control = controldata::read(binaries, &context.layout.data(), CONTROL).await?;
    let fork = fork(record, control.timeline);
    let kept = match diverged::keep_aside(&context.layout, control.segment, fork, diverged::LIMIT).await {
        Ok(kept) => kept,
        Err(error) if record.lease_millis.is_none() => {
            tracing::warn!(error = telemetry::report(&error), "the diverged log is not kept");
            return Ok(());
        }
        Err(error) => return Err(error).context("keeping the diverged log aside"),
    };
    if let Some(kept) = kept {
        tracing::warn!(at = %kept.path.display(), bytes = kept.bytes, "diverged WAL is kept aside");
    }
    crate::driver::inspect::note_kept(context).await
}
