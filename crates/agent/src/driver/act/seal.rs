//! The seal: stop the stream, promise, find the end of the log (§4 step 3, I2, I3).
//!
//! Must never promise before the stream is surely stopped, never report before the promise is durable, and never unseal.

use std::time::Duration;

use anyhow::ensure;
use ha::{Epoch, Position};
use postgres::Session;
use postgres::command::controldata;
use postgres::command::waldump::WalReader;
use postgres::seal::{SealError, end_of_wal, stop_receiving};
use postgres::settings::Access;

use crate::driver::context::Context;

const CONTROL: Duration = Duration::from_secs(10);
/// Bound of one statement.
const BOUND: Duration = Duration::from_secs(2);
/// How long the stream may take to stop before PostgreSQL is stopped instead (a replay conflict, P13).
const STREAM: Duration = Duration::from_secs(2);
/// Replaying what was received takes as long as it takes; the next decision tries again.
const END: Duration = Duration::from_secs(30);

/// Seals below `below`.
pub(super) async fn seal(context: &Context, below: Epoch) -> anyhow::Result<()> {
    if context.postmaster.now().is_gone() {
        // Nothing streams, and every start is one without an upstream.
        promise(context, below).await?;
        return Ok(());
    }
    match stop(context).await {
        Ok(()) => {}
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "the stream does not stop: PostgreSQL is stopped instead"
            );
            context.postmaster.kill_all().await?;
            promise(context, below).await?;
            super::start::standby(context).await?;
        }
    }
    context.tracked.set(|facts| facts.upstream = None);
    promise(context, below).await?;
    let end = find_end(context).await?;
    tracing::info!(%below, %end, "sealed");
    Ok(())
}

/// Finds the end of the local log of a standby that streams from nobody.
pub(super) async fn find_end(context: &Context) -> anyhow::Result<Position> {
    ensure!(context.tracked.get().upstream.is_none(), "it streams");
    let session = Session::open(&context.layout, BOUND).await?;
    let binaries = context.binaries()?;
    let data = context.layout.data();
    let segment = if let Some(segment) = context.segment.get() {
        *segment
    } else {
        let control = controldata::read(&binaries, &data, CONTROL).await?;
        *context.segment.get_or_init(|| control.segment)
    };
    let reader = WalReader::new(&binaries, &data, segment);
    let end = end_of_wal(&context.layout, &session, &reader, &context.config.cluster, END).await?;
    context.tracked.set(|facts| facts.end = Some(end));
    Ok(end)
}

async fn stop(context: &Context) -> anyhow::Result<()> {
    let session = Session::open(&context.layout, BOUND).await?;
    let names = context.tracked.get().names;
    let settings = context.configuration(None, &names, Access::Open)?;
    match stop_receiving(&context.layout, &session, &settings, STREAM).await {
        Err(SealError::NotInRecovery) => anyhow::bail!("a running master is stopped, not sealed"),
        other => other?,
    }
    Ok(())
}

async fn promise(context: &Context, below: Epoch) -> anyhow::Result<()> {
    let promise =
        context.promise.update(move |promise| promise.sealed_below = promise.sealed_below.max(below)).await?;
    ensure!(promise.sealed_below >= below, "the seal is not durable");
    Ok(())
}
