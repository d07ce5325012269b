//! The seal: stop the stream, promise, find the end of the log (§4 step 3, I2, I3).
//!
//! Must never promise before the stream is surely stopped, never report before the promise is durable, and never unseal.

use std::time::Duration;

use anyhow::ensure;
use ha::{Epoch, Position};
use postgres::Session;
use postgres::command::controldata::{self, ClusterState};
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
        promise(context, below, ended_its_lead(context).await).await?;
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
            promise(context, below, false).await?;
            super::start::standby(context).await?;
        }
    }
    context.tracked.set(|facts| facts.upstream = None);
    promise(context, below, false).await?;
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

/// Whether this life led and has stopped its Postgres cleanly, so that with the seal it leads no more (§2). Unknown counts
/// as no: a later life then waits for others, and nothing is lost.
async fn ended_its_lead(context: &Context) -> bool {
    let led_by_this_life =
        context.promise.get().led.is_some_and(|led| led.boot == context.postmaster.boot() && !led.stopped);
    if !led_by_this_life {
        return false;
    }
    let Ok(binaries) = context.binaries() else { return false };
    let control = controldata::read(&binaries, &context.layout.data(), CONTROL).await;
    control.is_ok_and(|control| control.state == ClusterState::ShutDown) && context.postmaster.now().is_gone()
}

async fn promise(context: &Context, below: Epoch, ended_its_lead: bool) -> anyhow::Result<()> {
    let boot = context.postmaster.boot();
    let change = move |promise: &mut ha::Promise| {
        promise.sealed_below = promise.sealed_below.max(below);
        if let Some(led) = promise.led.as_mut().filter(|led| ended_its_lead && led.boot == boot) {
            led.stopped = true;
        }
    };
    let promise = context.promise.update(change).await?;
    ensure!(promise.sealed_below >= below, "the seal is not durable");
    Ok(())
}
