//! A member whose node is gone for good is cloned anew on another (K14).
//!
//! Turned red by: a claim that pins the pod to the lost node for ever, a volume given up while the node is merely away.

use anyhow::{Context, Result, ensure};
use api::names;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};

use crate::client::gaps;
use crate::cluster::{FORM, HEAL};
use crate::faults::{self, Fault};
use crate::judge;
use crate::scenarios::failover::bystander;
use crate::wait;
use crate::world::{World, now};

/// The node of a follower loses power: nothing is given up. Then its Node object goes, and the member moves.
pub(crate) async fn node_gone(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let before = cluster.whole(world, 3, FORM).await?;
    let client = bystander(world, &cluster, &before).await?;
    let on = world.api::<k8s_openapi::api::core::v1::Pod>(&cluster.namespace);
    let clients_node = on
        .list(&kube::api::ListParams::default().labels("app=matriarch-client"))
        .await?
        .items
        .into_iter()
        .find_map(|pod| pod.spec?.node_name);
    let lost = before
        .replicas()
        .find(|member| member.node != clients_node)
        .context("every follower shares its node with the client")?
        .clone();
    let node = lost.node.clone().context("the follower has no node")?;
    let claims = world.api::<PersistentVolumeClaim>(&cluster.namespace);
    let claim = names::data_claim(&lost.name);
    let old = claims.get(&claim).await?.uid();
    let since = now();
    Fault::NodePower.make(world, &cluster, &lost).await?;
    let nodes: Api<Node> = Api::all(world.client.clone());
    wait::until("Kubernetes notices that the node is away", HEAL, async || {
        let conditions =
            nodes.get(&node).await?.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready = conditions.iter().find(|one| one.type_ == "Ready").map(|one| one.status.clone());
        wait::when(ready.as_deref() == Some("Unknown"), || format!("{ready:?}"))
    })
    .await?;
    ensure!(claims.get(&claim).await?.uid() == old, "{claim} was given up though its node may come back");

    nodes.delete(&node, &DeleteParams::default()).await.with_context(|| format!("delete Node {node}"))?;
    let (seen, took) = wait::until("the member is whole on another node", HEAL * 2, async || {
        let seen = cluster.look(world).await?;
        let there = seen.member(&lost.name).and_then(|member| member.node.clone());
        Ok(match (seen.deficiency(3), there) {
            (None, Some(there)) if there != node => Ok(seen),
            (why, there) => Err(format!("on {there:?}, {why:?}: {seen}")),
        })
    })
    .await?;
    ensure!(claims.get(&claim).await?.uid() != old, "{claim} is still the old one");
    world.say(format!(
        "{} was whole on another node {:.0} s after its Node went",
        lost.name,
        took.as_secs_f64()
    ));
    ensure!(seen.leader() == before.leader(), "the master changed: {before} became {seen}");
    let (text, _) = gaps(&client.between(world, since, now()).await?);
    world.say(format!("gap all the while: {text}"));

    faults::mend(world).await?;
    wait::until("the node is back", HEAL, async || {
        let ready = nodes.get(&node).await?.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready = ready.iter().any(|one| one.type_ == "Ready" && one.status == "True");
        wait::when(ready, || "not ready".to_owned())
    })
    .await?;
    judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    client.finish(world, &cluster).await?;
    // What the others find should be spread over all nodes again.
    world.discard_shared().await
}
