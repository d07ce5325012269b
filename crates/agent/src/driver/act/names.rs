//! `synchronous_standby_names`, surely in force (rule 7a).

use std::time::Duration;

use ha::{Gate, Names};
use postgres::Session;
use postgres::replication::names::put_in_force;
use postgres::replication::standbys::end_walsenders;
use postgres::settings::Access;

use crate::driver::context::Context;

/// Placeholder, proof and real names need three reloads at most.
const BOUND: Duration = Duration::from_secs(10);

/// Puts these names in force; until that is shown, nobody knows what is.
pub(super) async fn set(context: &Context, names: &Names) -> anyhow::Result<()> {
    let from = context.tracked.get().names;
    if from == *names {
        return Ok(());
    }
    change(context, &from, names).await
}

/// After a start as master: the names were in the file from the first moment, but the flag that makes commits wait is
/// set by the checkpointer at its own time, so it is shown as for a change from nothing.
pub(super) async fn verify_at_start(context: &Context, names: &Names) -> anyhow::Result<()> {
    let session = Session::open(&context.layout, BOUND).await?;
    change(context, &Names::Unknown, names).await?;
    // A master that was stopped cleanly writes nothing by itself when it starts (I13).
    let first = postgres::promote::write_first_record(&session).await?;
    let fence = postgres::promote::fence_xid(&session).await?;
    context.tracked.set(|facts| {
        facts.first_record = Some(first);
        facts.fence_xid = Some(fence);
    });
    Ok(())
}

async fn change(context: &Context, from: &Names, names: &Names) -> anyhow::Result<()> {
    let session = Session::open(&context.layout, BOUND).await?;
    context.tracked.set(|facts| facts.names = Names::Unknown);
    let access = if context.tracked.get().gate == Gate::Open { Access::Open } else { Access::Closed };
    let settings = context.configuration(None, names, access)?;
    put_in_force(&context.layout, &session, &settings, from, BOUND).await?;
    // Each walsender has its own copy of the value, read at its own time: a new one reads the present value (§6).
    end_walsenders(&session, None).await?;
    context.tracked.set(|facts| facts.names = names.clone());
    Ok(())
}
