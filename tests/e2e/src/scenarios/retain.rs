//! K15: a cluster that is deleted with `Retain` and made again is the same database.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::names;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use serde_json::json;

use crate::client::{Client, Wish};
use crate::cluster::{Cluster, FORM, HEAL, clusters};
use crate::scenarios::failover::lead;
use crate::seen::Seen;
use crate::wait;
use crate::{judge, world::World};

/// Turned red by: an owner reference on the Lease or a kept Secret, initdb where claims hold data, a first member that is
/// taken for the newest.
pub(crate) async fn adopted(world: &World) -> Result<()> {
    let namespace = world.namespace("retain").await?;
    // The preference makes the third member the likely successor; that it leads is checked, not assumed.
    let third = names::pod("pg", 2);
    let change = json!({"spec": {"failover": {"priorities": {&third: 10}}}});
    let cluster = Cluster::from_example(world, &namespace, "minimal.yaml", &change).await?;
    cluster.whole(world, 3, FORM).await?;
    lead(world, &cluster, &third, 3).await?;
    let before = cluster.whole(world, 3, HEAL).await?;
    let client = Client::start(world, &cluster, &Wish::default()).await?;
    client.stop(world).await?;
    let kept = passwords(world, &cluster).await?;

    cluster.delete(world).await?;
    wait::until("the cluster and its pods are gone", HEAL, async || {
        let seen = cluster.look(world).await?;
        let gone =
            seen.members.is_empty() && clusters(world, &namespace).get_opt(&cluster.name).await?.is_none();
        wait::when(gone, || seen.to_string())
    })
    .await?;
    let claims = world.api::<PersistentVolumeClaim>(&namespace);
    for ordinal in 0..3 {
        let claim = names::data_claim(&names::pod(&cluster.name, ordinal));
        let found = claims.get_opt(&claim).await?;
        ensure!(found.is_some_and(|claim| claim.metadata.deletion_timestamp.is_none()), "{claim} is gone");
    }
    let lease = world.api::<Lease>(&namespace).get_opt(&names::lease(&cluster.name)).await?;
    ensure!(lease.is_some(), "the record is gone");

    let again = Cluster::from_example(world, &namespace, "minimal.yaml", &change).await?;
    let after = again.whole(world, 3, FORM).await?;
    let identifier = |seen: &Seen| seen.record.as_ref().and_then(|record| record.system_identifier);
    ensure!(identifier(&before).is_some(), "the record holds no system identifier: {before}");
    ensure!(identifier(&after) == identifier(&before), "another database: {before} became {after}");
    let epoch = |seen: &Seen| seen.record.as_ref().map(|record| record.epoch);
    ensure!(epoch(&after) > epoch(&before), "the epoch did not grow: {before} became {after}");
    ensure!(passwords(world, &again).await? == kept, "a password changed");
    judge::one_master(world, &again, &client, 3, Duration::from_secs(60)).await?;
    client.finish(world, &again).await?;
    world.remove_namespace(&namespace).await
}

async fn passwords(world: &World, cluster: &Cluster) -> Result<Vec<Vec<u8>>> {
    let secrets = world.api::<Secret>(&cluster.namespace);
    let mut passwords = Vec::new();
    for name in [names::app_secret(&cluster.name), names::superuser_secret(&cluster.name)] {
        let mut data = secrets.get(&name).await?.data.with_context(|| format!("{name} is empty"))?;
        passwords.push(data.remove("password").with_context(|| format!("{name} has no password"))?.0);
    }
    Ok(passwords)
}
