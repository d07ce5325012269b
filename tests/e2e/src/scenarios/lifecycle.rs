//! Members come and go; a single one restarts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::names;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::changes::{Changes, Endpoint, Stale};
use crate::client::{Client, Wish, gaps};
use crate::cluster::{Cluster, FORM, HEAL, clusters, tell};
use crate::judge;
use crate::scenarios::failover::{HANG, changed, lead};
use crate::seen::Seen;
use crate::wait;
use crate::world::{World, now};

/// Turned red by: removing the master without a hand-over, deleting a removed member's claim, an electorate that names a
/// member which does not stream.
pub(crate) async fn scaling(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    cluster.whole(world, 3, FORM).await?;
    let client = Client::start(world, &cluster, &Wish::default()).await?;
    scale(world, &cluster, &client, 4).await?;
    everybody_streams(world, &cluster, 3).await?;

    // A preference, so that one hand-over is enough; that the fourth member leads is checked, not assumed.
    let fourth = names::pod(&cluster.name, 3);
    cluster.patch(world, &priority(&fourth, &json!(10))).await?;
    wait::until("the operator has taken the preference in", HEAL, async || {
        let seen = cluster.look(world).await?;
        let taken = seen.cluster.as_ref().is_some_and(|cluster| {
            let observed = cluster.status.as_ref().and_then(|status| status.observed_generation);
            observed == cluster.metadata.generation
        });
        wait::when(taken, || seen.to_string())
    })
    .await?;
    let before = lead(world, &cluster, &fourth, 4).await?;
    let changes = Changes::watch(world, &cluster).await?;
    scale(world, &cluster, &client, 2).await?;
    let after = handed_over(world, &cluster, &changes, &before, &fourth).await?;
    drop(changes);
    world.say(format!("the master was to be removed and handed over first: {}", changed(&before, &after)));
    cluster.patch(world, &priority(&fourth, &Value::Null)).await?;

    scale(world, &cluster, &client, 3).await?;
    everybody_streams(world, &cluster, 2).await?;
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

/// Scales as `kubectl scale` and autoscalers do it, and waits until everything agrees.
async fn scale(world: &World, cluster: &Cluster, client: &Client, instances: usize) -> Result<()> {
    let since = now();
    let start = Instant::now();
    let scale = json!({"spec": {"replicas": instances}});
    clusters(world, &cluster.namespace)
        .patch_scale(&cluster.name, &PatchParams::default(), &Patch::Merge(&scale))
        .await
        .context("scale the cluster")?;
    let seen = judge::one_master(world, cluster, client, instances, HEAL).await?;
    let (text, longest) = gaps(&client.summary(world, Some(since)).await?);
    world.say(format!("{instances} members after {:.1} s; gap {text}", start.elapsed().as_secs_f64()));
    tell(world, "longest gap", longest, Duration::from_secs(3), HANG)?;
    ensure!(
        seen.members.iter().all(|member| names::ordinal(&cluster.name, &member.name).is_some()),
        "foreign members: {seen}"
    );
    Ok(())
}

/// Each member of status.electorates streams, as status.members says. Waited for, as the operator writes the one and the
/// leading agent the other.
async fn everybody_streams(world: &World, cluster: &Cluster, followers: usize) -> Result<()> {
    wait::until("everybody in status.electorates streams", HEAL, async || {
        let seen = cluster.look(world).await?;
        let status = seen.cluster.as_ref().and_then(|cluster| cluster.status.clone()).unwrap_or_default();
        let electors: BTreeSet<&String> =
            status.electorates.iter().flat_map(|electorate| &electorate.members).collect();
        let streams = |name: &&String| {
            status.members.iter().any(|member| member.name == **name && member.streaming == Some(true))
        };
        let silent: Vec<&&String> = electors.iter().filter(|name| !streams(name)).collect();
        wait::when(electors.len() == followers && silent.is_empty(), || {
            format!("electors {electors:?}, of which {silent:?} do not stream")
        })
    })
    .await
    .map(drop)
}

/// The master that was to be removed was no master any more when its pod began to leave.
async fn handed_over(
    world: &World,
    cluster: &Cluster,
    changes: &Changes,
    before: &Seen,
    removed: &str,
) -> Result<Seen> {
    let (leader, _) = wait::until("the removed pod's end is heard", HEAL, async || {
        Ok(changes.leader_when_leaving(removed)?.ok_or_else(|| format!("{removed} stays")))
    })
    .await?;
    ensure!(leader != removed, "{removed} was removed while it led");
    let after = cluster.whole(world, 2, HEAL).await?;
    let epoch = |seen: &Seen| seen.record.as_ref().map(|record| record.epoch);
    ensure!(epoch(&after) > epoch(before), "the epoch did not grow: {before} became {after}");
    ensure!(after.member(removed).is_none(), "{removed} is still there: {after}");
    Ok(after)
}

fn priority(pod: &str, value: &Value) -> Value {
    json!({"spec": {"failover": {"priorities": {pod: value}}}})
}

/// K3: at no time does `pgwrite` lead to an address that no living pod of that UID has; every change is judged, in the
/// order in which the API server made them.
///
/// Only a deletion by force is allowed a moment, and only for the pod that it hit: its object is gone at once, while its
/// process may live on for seconds, and nobody can retract what leads there before they know; then the agent of the
/// deleted pod, its successor or the operator does.
///
/// Turned red by: a leader that leaves its address in the slice. That the operator empties what no leader can is shown by
/// the controller's `slices`, since here the member itself is back before.
pub(crate) async fn single(world: &World) -> Result<()> {
    let namespace = world.namespace("single").await?;
    let change = json!({"spec": {"instances": 1}});
    let cluster = Cluster::from_example(world, &namespace, "minimal.yaml", &change).await?;
    let before = cluster.whole(world, 1, FORM).await?;
    let client = Client::start(world, &cluster, &Wish::default()).await?;
    for (how, grace) in [("gracefully", None), ("with force", Some(0))] {
        let old = cluster.whole(world, 1, HEAL).await?;
        let old = old.master()?;
        let changes = Changes::watch(world, &cluster).await?;
        let since = now();
        cluster.delete_pod(world, &old.name, grace).await?;
        let ((logs, route), _) = wait::until("the single member writes again", HEAL, async || {
            let seen = cluster.look(world).await?;
            let logs = client.summary(world, Some(since)).await?;
            let back = seen.disagreement().is_none()
                && seen.members.iter().all(|member| member.uid != old.uid && member.ready)
                && logs.iter().all(|log| log.ok_begun > 0);
            let route: BTreeSet<Endpoint> = seen.write.endpoints.iter().cloned().collect();
            Ok(if back { Ok((logs, route)) } else { Err(seen.to_string()) })
        })
        .await?;
        world.say(format!("deleted {how}: gap {}", gaps(&logs).0));
        wait::until("the route's last change is heard", HEAL, async || {
            let heard = changes.write()?;
            wait::when(heard == route, || format!("heard {heard:?}, seen {route:?}"))
        })
        .await?;
        let stale = changes.stale()?;
        let tolerated = |stale: &Stale| {
            let forced = grace == Some(0) && stale.endpoint.1.as_ref() == Some(&old.uid);
            forced && stale.lasted < Duration::from_secs(2)
        };
        ensure!(
            stale.iter().all(tolerated),
            "deleted {how}: pgwrite led to {stale:?}, where no living pod of that UID was"
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
