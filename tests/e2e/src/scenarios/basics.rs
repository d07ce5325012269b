//! The thin slice: a cluster forms, clients reach it, members are where they say, a replica returns.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::names;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::client::{Client, Wish, list};
use crate::cluster::{FORM, HEAL, tell};
use crate::judge;
use crate::seen::Seen;
use crate::wait;
use crate::world::World;

/// Turned red by: a role in `pg_hba.conf` left out, `pgread` listing the master, a label before the role.
pub(crate) async fn ready(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let seen = cluster.whole(world, 3, FORM).await?;
    tell(
        world,
        "from apply to three members streaming",
        cluster.applied.elapsed(),
        Duration::from_secs(30),
        FORM,
    )?;
    let masters = seen.members.iter().filter(|member| member.role.as_deref() == Some("master")).count();
    let replicas = seen.members.iter().filter(|member| member.role.as_deref() == Some("replica")).count();
    ensure!((masters, replicas) == (1, 2), "{masters} masters and {replicas} replicas by label: {seen}");
    for member in &seen.members {
        pages(world, &cluster.namespace, &member.name).await?;
    }
    let nodes: std::collections::BTreeSet<_> = seen.members.iter().map(|member| &member.node).collect();
    ensure!(nodes.len() == 3, "members share nodes: {seen}");

    let wish = Wish { read_host: Some(cluster.read_host()), ..Wish::default() };
    let client = Client::start(world, &cluster, &wish).await?;
    wait::until(
        "both followers answer through pgread, the master never",
        Duration::from_secs(30),
        async || {
            let logs = client.summary(world, None).await?;
            let read = logs.iter().find(|log| log.mode == "read").context("there is no reader")?;
            ensure!(read.from_master == 0, "pgread led to a master: {}", list(&logs));
            wait::when(read.servers.len() == 2 && read.ok >= 20, || list(&logs))
        },
    )
    .await?;
    judge::one_master(world, &cluster, &client, 3, Duration::from_secs(30)).await?;
    let logs = client.finish(world, &cluster).await?;
    let read = logs.iter().find(|log| log.mode == "read").context("there is no reader")?;
    ensure!(read.from_master == 0 && read.error == 0, "{read}");
    Ok(())
}

/// What a member tells by HTTP: its decisions with their reasons, and what monitoring reads.
async fn pages(world: &World, namespace: &str, pod: &str) -> Result<()> {
    let status: serde_json::Value = world.page(namespace, pod, names::ports::HTTP, "status").await?;
    let text = status.to_string();
    ensure!(text.contains("because") && text.contains(pod), "{pod} /status tells no decision: {text}");
    let page =
        |page: &str| format!("/api/v1/namespaces/{namespace}/pods/{pod}:{}/proxy/{page}", names::ports::HTTP);
    let metrics = world.get(&page("metrics")).await?;
    for name in ["matriarch_agent_epoch", "matriarch_agent_is_leader", "matriarch_agent_streaming"] {
        ensure!(metrics.lines().any(|line| line.starts_with(name)), "{pod} /metrics has no {name}");
    }
    world.get(&page("readyz")).await?;
    Ok(())
}

/// Turned red by: cloning where the volume still holds the member (the incarnation changes), a claim that is replaced.
pub(crate) async fn members(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let before = cluster.whole(world, 3, FORM).await?;
    let client = Client::start(world, &cluster, &Wish::default()).await?;
    judge::one_master(world, &cluster, &client, 3, Duration::from_secs(30)).await?;

    let replica = before.replicas().next().context("there is no replica")?;
    let claim = names::data_claim(&replica.name);
    let claims = world.api::<PersistentVolumeClaim>(&cluster.namespace);
    let volume =
        |claim: &PersistentVolumeClaim| claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
    let claim_before = claims.get(&claim).await?;
    let incarnation = incarnation(&before, &replica.name).context("the replica is in no electorate")?;
    cluster.delete_pod(world, &replica.name, None).await?;
    let name = replica.name.clone();
    let old = replica.uid.clone();
    let ((), took) = wait::until("the replica's pod is a new one and ready", HEAL, async || {
        let seen = cluster.look(world).await?;
        let back = seen.member(&name).is_some_and(|member| member.uid != old && member.ready);
        wait::when(back, || seen.to_string())
    })
    .await?;
    world.say(format!("{name} was back after {:.1} s", took.as_secs_f64()));
    let after = judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    ensure!(after.leader() == before.leader(), "the master changed: {before} became {after}");
    ensure!(
        self::incarnation(&after, &name) == Some(incarnation),
        "{name} is another incarnation, so it was cloned: {after}"
    );
    let claim_after = claims.get(&claim).await?;
    ensure!(
        claim_after.metadata.uid == claim_before.metadata.uid
            && volume(&claim_after) == volume(&claim_before),
        "{claim} is another claim or volume"
    );
    client.finish(world, &cluster).await?;
    Ok(())
}

/// The incarnation under which the newest electorate knows a member.
fn incarnation(seen: &Seen, name: &str) -> Option<ha::Incarnation> {
    let electorate = seen.record.as_ref()?.current_electorate()?;
    electorate.members.iter().find(|member| member.name.0 == name).map(|member| member.incarnation)
}
