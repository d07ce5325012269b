//! One master: the label, the record, `pgwrite`, status and PostgreSQL itself agree.

use std::time::Duration;

use anyhow::Result;

use crate::client::Client;
use crate::cluster::Cluster;
use crate::seen::Seen;
use crate::wait;
use crate::world::World;

/// Waits until the cluster is whole and each member says of itself what the record says of it.
pub(crate) async fn one_master(
    world: &World,
    cluster: &Cluster,
    client: &Client,
    instances: usize,
    bound: Duration,
) -> Result<Seen> {
    let (seen, _) = wait::until("one master, and everything agrees", bound, async || {
        let seen = cluster.look(world).await?;
        if let Some(why) = seen.deficiency(instances) {
            return Ok(Err(format!("{why}: {seen}")));
        }
        for member in &seen.members {
            let answer = client.ask(world, &cluster.member_host(&member.name)).await?;
            if answer.server != member.ip {
                return Ok(Err(format!("{} answers from {:?}: {seen}", member.name, answer.server)));
            }
            if answer.in_recovery == (Some(member.name.as_str()) == seen.leader()) {
                return Ok(Err(format!(
                    "{} says pg_is_in_recovery() = {}: {seen}",
                    member.name, answer.in_recovery
                )));
            }
        }
        let through = client.ask(world, &cluster.write_host()).await?;
        if through.in_recovery || through.server != seen.master()?.ip {
            return Ok(Err(format!("pgwrite leads to {through:?}: {seen}")));
        }
        Ok(Ok(seen))
    })
    .await?;
    Ok(seen)
}
