//! A copy of the leader's data on an empty volume, or in place of a directory that cannot be mended.
//!
//! Must never overwrite a directory that may be worth something: what is replaced is set aside (§4 step 10), and the
//! copy counts only when it is whole and of the recorded database.

use std::time::Duration;

use anyhow::ensure;
use ha::{Bootstrap, Upstream};
use postgres::command::basebackup::{clone_from, set_aside};
use postgres::command::controldata;
use postgres::durable;

use super::still_leads;
use crate::driver::context::Context;

/// A copy of terabytes takes a day.
const CLONE: Duration = Duration::from_secs(24 * 3600);
const CONTROL: Duration = Duration::from_secs(10);
/// Least time between two lines of progress in the log.
const PROGRESS: Duration = Duration::from_secs(10);

/// Clones onto an empty volume.
pub(super) async fn clone(context: &Context, from: &Upstream) -> anyhow::Result<()> {
    ensure!(context.postmaster.now().is_gone(), "PostgreSQL still runs");
    let record = still_leads(context, &from.member, from.epoch).await?;
    ensure!(context.promise.get().bootstrap == Bootstrap::Empty, "this volume is not empty");
    if context.layout.data().exists() {
        // The promise says that no directory was ever finished here.
        let data = context.layout.data();
        tokio::task::spawn_blocking(move || durable::remove_tree(&data)).await??;
    }
    let binaries = context.binaries()?;
    let incarnation = context.promise.get().incarnation;
    let mut told = std::time::Instant::now();
    clone_from(&binaries, &context.layout, &context.upstream(from)?, incarnation, CLONE, |progress| {
        if told.elapsed() >= PROGRESS {
            told = std::time::Instant::now();
            tracing::info!(copied_kib = progress.copied, total_kib = progress.total, "cloning");
        }
    })
    .await?;
    let control = controldata::read(&binaries, &context.layout.data(), CONTROL).await?;
    let identifier = control.system_identifier;
    ensure!(
        record.system_identifier.is_none_or(|recorded| recorded == identifier),
        "the clone is of another database: {identifier}",
    );
    let from = from.clone();
    let (me, boot) = (context.member(), context.postmaster.boot());
    context
        .promise
        .update(move |promise| {
            promise.bootstrap = Bootstrap::Member;
            promise.system_identifier = Some(identifier);
            promise.last_epoch = promise.last_epoch.max(from.epoch);
            promise.last_timeline = record.timeline;
            promise.keep(&record, &me, boot);
            promise.planted = Vec::new();
            promise.rewinding = false;
            promise.catching_up = None;
        })
        .await?;
    Ok(())
}

/// Sets the present directory aside and clones anew.
pub(super) async fn reclone(context: &Context, from: &Upstream) -> anyhow::Result<()> {
    ensure!(context.postmaster.now().is_gone(), "PostgreSQL still runs");
    let record = still_leads(context, &from.member, from.epoch).await?;
    ensure!(record.fence_xid.is_some(), "the leader's epoch is not committed yet");
    ensure!(!record.names(&context.member()), "the record names this member");
    set_aside(&context.layout).await?;
    let layout = context.layout.clone();
    postgres::durable::in_order(move || postgres::command::rewind::marker(&layout).remove()).await??;
    context.promise.update(|promise| promise.bootstrap = Bootstrap::Empty).await?;
    clone(context, from).await
}
