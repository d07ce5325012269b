//! The acts: what an action of the protocol means on a real PostgreSQL, one file each.
//!
//! Every act re-checks its precondition just before its irreversible step, writes the promise before anything rests on
//! it, and may be dropped at any await: what it had begun is then doubted in [`super::tracked`], not assumed. An act
//! that is repeated after it succeeded changes nothing.

mod catch_up;
mod clone;
mod follow;
mod fork;
mod gate;
mod initialise;
mod names;
mod prepare;
pub(super) mod promote;
mod provision;
mod rewind;
mod seal;
mod start;
mod stop;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use ha::{Action, FenceToken, MemberId, Record};

use super::context::Context;

/// Attempts at a fresh read, and the pause between them.
const FRESH_TRIES: usize = 10;
const FRESH_PAUSE: Duration = Duration::from_millis(200);

/// Does these in order, up to the first that fails.
pub(crate) async fn run(context: &Context, actions: Vec<Action>) -> anyhow::Result<()> {
    let _acting = context.acting();
    for action in actions {
        one(context, action).await?;
    }
    Ok(())
}

async fn one(context: &Context, action: Action) -> anyhow::Result<()> {
    match action {
        Action::Initialise => initialise::initialise(context).await,
        Action::WipeUnrecorded => initialise::wipe_unrecorded(context).await,
        Action::Clone { from } => clone::clone(context, &from).await,
        Action::Reclone { from } => clone::reclone(context, &from).await,
        Action::Rewind { from } => rewind::rewind(context, &from).await,
        Action::StartStandby => start::standby(context).await,
        Action::StartPrimary { fence, names } => start::primary(context, &fence, &names).await,
        Action::Follow { upstream } => follow::follow(context, &upstream).await,
        Action::Stop { mode } => stop::stop(context, mode).await,
        Action::Seal { below } => seal::seal(context, below).await,
        Action::Promote { fence, timeline, names } => {
            promote::promote(context, &fence, timeline, &names).await
        }
        Action::SetNames { names } => names::set(context, &names).await,
        Action::Prepare { members } => prepare::prepare(context, &members).await,
        Action::Provision => provision::provision(context).await,
        Action::CloseGate => gate::close(context).await,
        Action::OpenGate => gate::open(context).await,
        // Not acts on Postgres: the loop sends them elsewhere.
        Action::Swap(_) | Action::Publish { .. } | Action::Retract => Ok(()),
    }
}

/// Finds the end of the log of a standby that streams from nobody.
pub(crate) async fn end_of_log(context: &Context) -> anyhow::Result<()> {
    seal::find_end(context).await.map(drop)
}

/// Corrects roles and passwords after a Secret has changed.
pub(crate) async fn provision_again(context: &Context) -> anyhow::Result<()> {
    provision::provision(context).await
}

/// Lets readers in to a standby that nobody is led to for writing any more.
pub(crate) async fn open_to_readers(context: &Context) -> anyhow::Result<()> {
    gate::open_to_readers(context).await
}

/// A clean stop; the next decisions start it again in the role that the record says.
pub(crate) async fn restart(context: &Context) -> anyhow::Result<()> {
    stop::stop(context, ha::StopMode::Fast).await
}

/// A fresh read of the record that still says what the won swap said: we lead, in this very life, in that epoch and on
/// that timeline. A later change of ours (a wider electorate, a renewal) does not matter.
async fn still_won(context: &Context, fence: &FenceToken) -> anyhow::Result<Record> {
    let record = fresh(context).await?;
    check_won(context, fence, &record)?;
    Ok(record)
}

/// The same of the record that is known, which the won swap itself brought.
fn known_won(context: &Context, fence: &FenceToken) -> anyhow::Result<Record> {
    let record = context.record.get().record().cloned().context("the record is not known")?;
    check_won(context, fence, &record)?;
    Ok(record)
}

fn check_won(context: &Context, fence: &FenceToken, record: &Record) -> anyhow::Result<()> {
    let leader = record.leader.as_ref().context("the record names no leader")?;
    ensure!(
        leader.member() == context.member()
            && leader.boot == context.postmaster.boot()
            && leader.pod_uid == context.config.pod_uid,
        "the record names {} in another life",
        leader.name,
    );
    ensure!(record.epoch == fence.epoch(), "the record is at epoch {}, not {}", record.epoch, fence.epoch());
    ensure!(record.timeline == fence.timeline(), "the record says timeline {}", record.timeline);
    let sealed = context.promise.get().sealed_below;
    ensure!(sealed <= record.epoch, "this member has sealed itself below {sealed} since");
    Ok(())
}

/// A fresh read of the record, tried for a while: the proof of a win is used up by the act that needs this.
async fn fresh(context: &Context) -> anyhow::Result<Record> {
    for _ in 0..FRESH_TRIES {
        if let Some(record) = context.record.refresh().await {
            return Ok(record);
        }
        tokio::time::sleep(FRESH_PAUSE).await;
    }
    anyhow::bail!("the record cannot be read afresh")
}

/// A fresh read of the record that still names this leader in this epoch: before what must not be done for another
/// (rewind, wipe, follow after an absence).
async fn still_leads(context: &Context, leader: &MemberId, epoch: ha::Epoch) -> anyhow::Result<Record> {
    let record = fresh(context).await?;
    ensure!(
        record.names(leader) && record.epoch == epoch,
        "the record does not name {leader} in epoch {epoch} any more"
    );
    Ok(record)
}

/// The record that was won, and that this life leads, durable before anything rests on it (§4 step 5, §2).
async fn keep_won(context: &Context, record: &Record) -> anyhow::Result<()> {
    let record = record.clone();
    context
        .promise
        .update(move |promise| {
            promise.bootstrap = ha::Bootstrap::Member;
            promise.catching_up = None;
            promise.last_epoch = promise.last_epoch.max(record.epoch);
            promise.last_timeline = record.timeline;
            promise.led.clone_from(&record.leader);
            promise.last_record = Some(record);
        })
        .await?;
    Ok(())
}
