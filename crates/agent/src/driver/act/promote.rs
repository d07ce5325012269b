//! From sealed standby to master behind a closed gate (§4 steps 6 and 7).
//!
//! Must never promote unless a fresh read of the record says so just before, the won record is durable, the gate is
//! closed, names are in force and PostgreSQL can only choose the recorded timeline (I11). What went half-way is never
//! repeated under the same record (P24).

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use ha::{FenceToken, Gate, Incarnation, Instant, Names, Timeline};
use postgres::Session;
use postgres::history::plant;
use postgres::promote::{PromoteError, checkpoint, fence_xid};
use postgres::replication::slots::slots;
use postgres::roles::member_roles;
use postgres::settings::Access;

use super::{keep_won, known_won, still_won};
use crate::clock;
use crate::driver::context::Context;

/// Bound of a statement, a reload, the closing of the gate.
const BOUND: Duration = Duration::from_secs(5);
/// Promotion takes 30–75 ms (P17); a large amount of pending invalidations may add to it.
const PROMOTION: Duration = Duration::from_secs(30);
/// Nobody waits for the checkpoint.
const CHECKPOINT: Duration = Duration::from_secs(3600);

/// Promotes to `timeline`.
pub(super) async fn promote(
    context: &Context,
    fence: &FenceToken,
    timeline: Timeline,
    names: &Names,
) -> anyhow::Result<()> {
    ensure!(timeline == fence.timeline(), "the record was won for timeline {}", fence.timeline());
    let facts = context.tracked.get();
    ensure!(facts.upstream.is_none(), "it still streams");
    let end = facts.end.context("the end of the log is not known")?;
    // The swap's own answer is what is known of the record; it is read afresh just before the promotion.
    let record = known_won(context, fence)?;
    keep_won(context, &record).await?;

    let began = clock::now();
    let session = Session::open(&context.layout, BOUND).await?;
    let settings = context.configuration(None, names, Access::Closed)?;
    context.tracked.set(|facts| facts.names = Names::Unknown);
    // From one non-empty value to another, before anybody can commit (I7): the gate's reload brings both.
    settings.write_protocol(&context.layout).await?;
    postgres::gate::close(&context.layout, &session, &settings, BOUND).await?;
    context.tracked.set(|facts| facts.gate = Gate::Closed);
    let closed = clock::now();
    super::start::uproot(context).await?;
    let wal = context.layout.wal();
    let planned = plant::plan(&wal, end.timeline, timeline)?;
    let listed = planned.clone();
    context.promise.update(move |promise| promise.planted = listed).await?;
    postgres::durable::in_order(move || plant::plant(&wal, end, &planned)).await??;

    still_won(context, fence).await?;
    ensure!(context.tracked.get().end == Some(end), "the log has moved");
    let prepared = clock::now();
    let promoted = match postgres::promote::promote(&context.layout, &session, timeline, PROMOTION).await {
        Err(error @ (PromoteError::WrongTimeline { .. } | PromoteError::Timeout(_))) => {
            context.postmaster.kill_all().await?;
            return Err(error.into());
        }
        other => other?,
    };
    let out_of_recovery = clock::now();
    let fence_xid = fence_xid(&session).await?;
    let provisioned = super::provision::is_provisioned(context, &session).await?;
    let there = prepared_already(&session, &settings.hba.members).await.unwrap_or_default();
    let names = names.clone();
    context.tracked.set(|facts| {
        facts.first_record = Some(promoted.first_record);
        facts.fence_xid = Some(fence_xid);
        facts.names = names;
        facts.provisioned = provisioned;
        facts.prepared = there;
        facts.end = None;
    });
    // The others can follow from now on.
    context.look.notify_one();
    forget_planted(context, timeline).await?;
    let millis = |to: Instant, from: Instant| u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        %timeline,
        first_record = %promoted.first_record,
        gate_millis = millis(closed, began),
        plant_and_read_millis = millis(prepared, closed),
        promote_millis = millis(out_of_recovery, prepared),
        after_millis = millis(clock::now(), out_of_recovery),
        "promoted"
    );
    checkpoint_in_background(context);
    Ok(())
}

/// What a promotion leaves to do once the server is a master, for an agent that finds one which it did not promote itself:
/// the one before it was ended in between. Without the checkpoint nobody could rewind from here before the next one that
/// PostgreSQL makes by itself, minutes later (P22).
pub(in crate::driver) async fn complete(
    context: &Context,
    timeline: Timeline,
    control_timeline: Timeline,
) -> anyhow::Result<()> {
    forget_planted(context, timeline).await?;
    if control_timeline != timeline {
        checkpoint_in_background(context);
    }
    Ok(())
}

/// The history that was planted is that of timelines below the one that was chosen (P11). Otherwise it is for the next
/// start to judge.
async fn forget_planted(context: &Context, chosen: Timeline) -> anyhow::Result<()> {
    let planted = context.promise.get().planted;
    if !planted.is_empty() && planted.iter().all(|it| *it < chosen) {
        context.promise.update(|promise| promise.planted = Vec::new()).await?;
    }
    Ok(())
}

fn checkpoint_in_background(context: &Context) {
    let (layout, running) = (context.layout.clone(), checkpoint(&context.layout, CHECKPOINT));
    tokio::spawn(async move {
        match running.await {
            Ok(Ok(())) => tracing::info!(data = %layout.data().display(), "the first checkpoint is done"),
            Ok(Err(error)) => tracing::warn!(%error, "no checkpoint after the promotion"),
            Err(error) => tracing::warn!(%error, "no checkpoint after the promotion"),
        }
    });
}

/// Members that a standby had slots for, whose role came with the log and whom the gate admits: nothing is to be made for
/// them before clients are served.
async fn prepared_already(
    session: &Session,
    admitted: &BTreeSet<Incarnation>,
) -> anyhow::Result<BTreeSet<Incarnation>> {
    let slots: BTreeSet<Incarnation> = slots(session).await?.iter().map(|slot| slot.member).collect();
    let roles = member_roles(session).await?;
    Ok(admitted.iter().filter(|member| slots.contains(member) && roles.contains(member)).copied().collect())
}
