//! Streaming from the recorded leader, and from nobody else.
//!
//! Must never attach to another life of the leader than the one that was checked (I11, checked again after attaching),
//! nor follow an epoch below its own seal, nor acknowledge anything before the promise names that epoch.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use ha::{Record, Upstream};
use postgres::Session;
use postgres::server::{Observation, Prober};
use postgres::settings::Access;

use crate::driver::context::Context;

/// Bound of a statement and of the reload.
const BOUND: Duration = Duration::from_secs(5);
/// How long to watch for the stream; whether it comes at all is the next decisions' to judge.
const ATTACH: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

/// Follows `upstream`.
pub(super) async fn follow(context: &Context, upstream: &Upstream) -> anyhow::Result<()> {
    super::start::uproot(context).await?;
    promise(context, upstream).await?;
    let names = context.tracked.get().names;
    let settings = context.configuration(Some(upstream), &names, Access::Open)?;
    // A new leader waits for this stream: the server is told at once, and that it has read it is shown afterwards.
    settings.write_protocol(&context.layout).await?;
    context.postmaster.reload()?;
    match Session::open(&context.layout, BOUND).await {
        Ok(session) => postgres::follow::follow(&context.layout, &session, &settings, BOUND).await?,
        // Not consistent yet, so it answers nobody: it may need this very upstream to become so.
        Err(error) => tracing::debug!(%error, "following without a session"),
    }
    attached(context, upstream).await
}

/// Checks that this upstream may be followed, and promises it durably. From here on the server may stream.
pub(super) async fn promise(context: &Context, upstream: &Upstream) -> anyhow::Result<()> {
    let record = recorded(context, upstream)?;
    let promise = context.promise.get();
    ensure!(promise.sealed_below <= upstream.epoch, "sealed below {}", promise.sealed_below);
    ensure!(!promise.rewinding, "a rewind of this directory did not end");
    let epoch = upstream.epoch;
    let (me, boot) = (context.member(), context.postmaster.boot());
    context
        .promise
        .update(move |promise| {
            promise.last_epoch = promise.last_epoch.max(epoch);
            promise.last_timeline = record.timeline;
            // Not simply written: a write that somebody put back names the same leader, and a newer one may be known.
            promise.keep(&record, &me, boot);
        })
        .await?;
    context.tracked.set(|facts| {
        facts.upstream = Some(upstream.clone());
        facts.end = None;
    });
    Ok(())
}

/// The record still names this leader in this epoch, and the leader speaks in the life that was checked.
pub(super) fn recorded(context: &Context, upstream: &Upstream) -> anyhow::Result<Record> {
    let state = context.record.get();
    let record = state.record().cloned().or_else(|| context.promise.get().last_record);
    let record = record.context("no record is known")?;
    let leader = record.leader.as_ref().context("the record names no leader")?;
    ensure!(
        leader.member() == upstream.member && leader.boot == upstream.boot && record.epoch == upstream.epoch,
        "the record names {} in epoch {}",
        leader.name,
        record.epoch,
    );
    Ok(record)
}

/// Watches the stream come up, and looks again whether it is the life that was meant (I11).
async fn attached(context: &Context, upstream: &Upstream) -> anyhow::Result<()> {
    let mut prober = Prober::new(context.layout.clone());
    let until = tokio::time::Instant::now() + ATTACH;
    while tokio::time::Instant::now() < until {
        if let Observation::Standby(seen) = prober.observe(BOUND).await
            && seen.streaming
        {
            ensure!(
                seen.upstream_host.as_deref() == Some(context.config.host_of(&upstream.member.name).as_str()),
                "streams from {:?} instead of {}",
                seen.upstream_host,
                upstream.member,
            );
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let heard = context.channel.heard();
    let other = heard
        .get(&upstream.member.name)
        .map(|peer| peer.announcement.boot)
        .filter(|boot| *boot != upstream.boot);
    if let Some(boot) = other {
        // Whatever was received from another life is the business of the next decision; the stream ends now.
        let names = context.tracked.get().names;
        context.configuration(None, &names, Access::Open)?.write_protocol(&context.layout).await?;
        context.postmaster.reload()?;
        context.tracked.set(|facts| facts.upstream = None);
        anyhow::bail!("{} has another life meanwhile: {boot}", upstream.member);
    }
    Ok(())
}
