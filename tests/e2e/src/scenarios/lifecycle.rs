//! Members come and go; a single one restarts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::names;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::client::{Client, Wish, gaps};
use crate::cluster::{Cluster, FORM, HEAL, clusters, tell};
use crate::judge;
use crate::scenarios::failover::HANG;
use crate::wait;
use crate::world::{World, now};

/// Turned red by: removing the master without a hand-over, deleting a removed member's claim, an electorate that names a
/// member which does not stream.
pub(crate) async fn scaling(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    cluster.whole(world, 3, FORM).await?;
    let client = Client::start(world, &cluster, &Wish::default()).await?;
    for instances in [4_usize, 2, 3] {
        let since = now();
        let start = Instant::now();
        // As `kubectl scale` and autoscalers do it.
        let scale = json!({"spec": {"replicas": instances}});
        clusters(world, &cluster.namespace)
            .patch_scale(&cluster.name, &PatchParams::default(), &Patch::Merge(&scale))
            .await
            .context("scale the cluster")?;
        let seen = judge::one_master(world, &cluster, &client, instances, HEAL).await?;
        let (text, longest) = gaps(&client.summary(world, Some(since)).await?);
        world.say(format!("{instances} members after {:.1} s; gap {text}", start.elapsed().as_secs_f64()));
        tell(world, "longest gap", longest, Duration::from_secs(3), HANG)?;
        ensure!(
            seen.members.iter().all(|member| names::ordinal(&cluster.name, &member.name).is_some()),
            "foreign members: {seen}"
        );
    }
    let claims = world.api::<PersistentVolumeClaim>(&cluster.namespace);
    for ordinal in 0..4 {
        let claim = names::data_claim(&names::pod(&cluster.name, ordinal));
        ensure!(
            claims.get_opt(&claim).await?.is_some(),
            "{claim} is gone; claims of removed members are kept"
        );
    }
    client.finish(world, &cluster).await?;
    Ok(())
}

/// K3. Turned red by: a leader that leaves its address in the slice. That the operator empties what no leader can is shown
/// by the controller's `slices`, since here the member itself is back before.
pub(crate) async fn single(world: &World) -> Result<()> {
    let namespace = world.namespace("single").await?;
    let change = json!({"spec": {"instances": 1}});
    let cluster = Cluster::from_example(world, &namespace, "minimal.yaml", &change).await?;
    let before = cluster.whole(world, 1, FORM).await?;
    let client = Client::start(world, &cluster, &Wish::default()).await?;
    for (how, grace) in [("gracefully", None), ("with force", Some(0))] {
        let old = cluster.look(world).await?;
        let old = old.master()?;
        let since = now();
        cluster.delete_pod(world, &old.name, grace).await?;
        let mut stale: BTreeSet<String> = BTreeSet::new();
        let mut listed_while_gone = Duration::ZERO;
        let mut last = Instant::now();
        let (logs, _) = wait::until("the single member writes again", HEAL, async || {
            let seen = cluster.look(world).await?;
            let alive: BTreeSet<&str> =
                seen.members.iter().filter_map(|member| member.ip.as_deref()).collect();
            let step = last.elapsed();
            last = Instant::now();
            let wrong = seen.write.endpoints.iter().find(|(ip, _)| !alive.contains(ip.as_str()));
            if let Some((ip, _)) = wrong {
                stale.insert(ip.clone());
                listed_while_gone += step;
            }
            let logs = client.summary(world, Some(since)).await?;
            let back = seen.disagreement().is_none()
                && seen.members.iter().all(|member| member.uid != old.uid && member.ready)
                && logs.iter().all(|log| log.ok_begun > 0);
            Ok(if back { Ok(logs) } else { Err(seen.to_string()) })
        })
        .await?;
        world.say(format!("deleted {how}: gap {}", gaps(&logs).0));
        // By force the pod vanishes before anybody can act: only the time until the operator notices is bounded.
        ensure!(
            if grace.is_none() { stale.is_empty() } else { listed_while_gone < Duration::from_secs(2) },
            "deleted {how}: pgwrite led to {stale:?} for {listed_while_gone:?} while no pod had it"
        );
    }
    let after = judge::one_master(world, &cluster, &client, 1, HEAL).await?;
    ensure!(
        before.record.map(|r| r.system_identifier) == after.record.map(|r| r.system_identifier),
        "other data"
    );
    client.finish(world, &cluster).await?;
    world.remove_namespace(&namespace).await
}
