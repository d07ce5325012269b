//! Slots and replication roles for members that want to clone or follow.

use std::collections::BTreeSet;
use std::time::Duration;

use ha::{Gate, Incarnation, MemberId};
use postgres::Session;
use postgres::gate::admit_members;
use postgres::replication::slots::ensure_slots;
use postgres::roles::{ensure_member_group, ensure_member_roles};
use postgres::settings::Access;

use crate::driver::context::Context;

const BOUND: Duration = Duration::from_secs(10);

/// Makes what is missing for these members.
pub(super) async fn prepare(context: &Context, members: &BTreeSet<MemberId>) -> anyhow::Result<()> {
    let wanted: BTreeSet<Incarnation> = members.iter().map(|member| member.incarnation).collect();
    let session = Session::open(&context.layout, BOUND).await?;
    ensure_member_group(&session).await?;
    ensure_member_roles(&session, &wanted).await?;
    ensure_slots(&session, &wanted).await?;
    context.tracked.set(|facts| facts.prepared.extend(&wanted));
    let facts = context.tracked.get();
    let access = if facts.gate == Gate::Open { Access::Open } else { Access::Closed };
    let settings = context.configuration(None, &facts.names, access)?;
    admit_members(&context.layout, &session, &settings, BOUND).await?;
    Ok(())
}
