//! A stopped, diverged directory becomes a copy of the leader's past.
//!
//! Must never begin before the leader's epoch is committed and its control file shows its timeline (I12, P22), and
//! never leave a touched directory without a durable mark: such a directory is not started (§4 step 10).

use std::sync::PoisonError;
use std::time::Duration;

use anyhow::ensure;
use ha::Upstream;
use postgres::command::rewind::{RewindError, Rewound};

use super::still_leads;
use crate::driver::context::Context;

/// A rewind copies what changed; at the worst, everything.
const REWIND: Duration = Duration::from_secs(6 * 3600);

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
    context.promise.update(|promise| promise.rewinding = false).await?;
    *context.catch_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(from.clone());
    Ok(())
}
