//! The gate: who may connect to a master (§4 steps 6 and 8, I13).

use std::time::Duration;

use anyhow::{Context as _, ensure};
use ha::Gate;
use postgres::Session;
use postgres::settings::{Access, Settings};

use crate::driver::context::Context;

const BOUND: Duration = Duration::from_secs(5);

/// Closes it and ends every client session.
pub(super) async fn close(context: &Context) -> anyhow::Result<()> {
    let session = Session::open(&context.layout, BOUND).await?;
    let names = context.tracked.get().names;
    let settings = context.configuration(None, &names, Access::Closed)?;
    postgres::gate::close(&context.layout, &session, &settings, BOUND).await?;
    context.tracked.set(|facts| facts.gate = Gate::Closed);
    Ok(())
}

/// Opens it, if the record that is known still names this very life and the fence was read.
pub(super) async fn open(context: &Context) -> anyhow::Result<()> {
    let state = context.record.get();
    let record = state.record().context("the record is not known")?;
    let leader = record.leader.as_ref().context("the record names no leader")?;
    ensure!(
        leader.member() == context.member() && leader.boot == context.postmaster.boot(),
        "the record names {} in another life",
        leader.name,
    );
    ensure!(context.promise.get().sealed_below <= record.epoch, "this member has sealed itself");
    let facts = context.tracked.get();
    ensure!(facts.fence_xid.is_some() && facts.first_record.is_some(), "the first transaction is not known");
    let settings = context.configuration(None, &facts.names, Access::Open)?;
    // What an interrupted seal, or an agent that did not write it, may have left unsaid (§2).
    let led = leader.clone();
    context.promise.update(move |promise| promise.led = Some(led)).await?;
    // From here on somebody may connect.
    context.tracked.set(|facts| facts.gate = Gate::Open);
    let opened = admit(context, &settings).await;
    if opened.is_err() {
        // Perhaps open, surely not known to be: the next decision orders it again.
        context.tracked.set(|facts| facts.gate = Gate::Closed);
    }
    opened
}

/// Opens the gate of a standby to readers, once nobody is led to it for writing.
pub(super) async fn open_to_readers(context: &Context) -> anyhow::Result<()> {
    let session = Session::open(&context.layout, BOUND).await?;
    let recovers = "SELECT pg_is_in_recovery()";
    ensure!(session.value::<bool>("ask whether it recovers", recovers, &[]).await?, "it is no standby");
    let facts = context.tracked.get();
    let settings = context.configuration(facts.upstream.as_ref(), &facts.names, Access::Open)?;
    // Known to be open only when it is: pushed aside before, it is due again. A promotion closes it anyway.
    postgres::gate::open(&context.layout, &session, &settings, BOUND).await?;
    context.tracked.set(|facts| facts.gate = Gate::Open);
    Ok(())
}

/// Clients wait: the postmaster is told at once, and that it has read the file is shown afterwards.
async fn admit(context: &Context, settings: &Settings) -> anyhow::Result<()> {
    settings.write_hba(&context.layout).await?;
    context.postmaster.reload()?;
    let session = Session::open(&context.layout, BOUND).await?;
    Ok(postgres::gate::open(&context.layout, &session, settings, BOUND).await?)
}
