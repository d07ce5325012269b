//! Without the operator, without the API server, with a new operator: the database does not notice.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::client::{Client, gaps, list};
use crate::cluster::{Cluster, FORM, HEAL};
use crate::faults::{self, Fault};
use crate::judge;
use crate::scenarios::failover;
use crate::wait;
use crate::world::{World, now};

/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(60);

/// Turned red by: a failover, a label or a slice that waits for the operator.
pub(crate) async fn operator_down(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    cluster.whole(world, 3, FORM).await?;
    let operator = find_operator(world).await?;
    let replicas = operator.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(2);
    scale(world, &operator, 0).await?;
    let outcome = failover::under_load(world, &cluster, Fault::Postmaster, 3).await;
    scale(world, &operator, replicas).await?;
    outcome?;
    cluster.whole(world, 3, HEAL).await?;
    Ok(())
}

/// Turned red by: a master that steps down when it cannot renew, an agent that blocks on a call without a bound.
pub(crate) async fn api_stopped(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let before = cluster.whole(world, 3, FORM).await?;
    let client = failover::bystander(world, &cluster, &before).await?;
    let since = now();
    faults::stop_api(world).await?;
    // The length of the fault, not a wait for anything.
    tokio::time::sleep(AWAY).await;
    let until = now();
    faults::mend(world).await?;
    let (logs, _) = wait::until("the API server answers again", HEAL, async || {
        Ok(Ok(client.between(world, since, until).await?))
    })
    .await?;
    let (text, longest) = gaps(&logs);
    world.say(format!("longest gap within {AWAY:?} without the API server: {text}"));
    ensure!(longest < Duration::from_secs(5), "writes stopped for {longest:?}: {}", list(&logs));
    let after = judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    let epoch = |seen: &crate::seen::Seen| seen.record.as_ref().map(|record| record.epoch);
    ensure!(
        after.leader() == before.leader() && epoch(&after) == epoch(&before),
        "the roles changed: {before} became {after}"
    );
    client.finish(world, &cluster).await?;
    Ok(())
}

/// Turned red by: the operator's own image in the pod template instead of the pinned one (K12).
pub(crate) async fn operator_upgraded(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let before = cluster.whole(world, 3, FORM).await?;
    let client = failover::bystander(world, &cluster, &before).await?;
    let started = starts(world, &cluster, &client).await?;

    let operator = find_operator(world).await?;
    let container = operator
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref()?.containers.first())
        .context("the operator has no container")?;
    let (name, old) = (container.name.clone(), container.image.clone().context("the operator has no image")?);
    let new = format!("rig.test/matriarch:e2e-{}", world.next());
    for node in world.nodes().await? {
        world.rig(&["shell", &node, "ctr", "images", "tag", "--force", &old, &new]).await?;
    }
    // What a chart of a new version changes: the operator's image and the one it would give to new clusters.
    let image = |image: &str| {
        let arguments: Vec<String> =
            container.args.iter().flatten().map(|word| word.replace(&old, image)).collect();
        json!({"spec": {"template": {"spec": {"containers": [{"name": name, "image": image, "args": arguments}]}}}})
    };
    upgrade(world, &operator, &image(&new)).await?;
    // Something for the new operator to do, so that it surely has reconciled.
    cluster.patch(world, &json!({"spec": {"postgres": {"parameters": {"work_mem": "5MB"}}}})).await?;
    let reconciled = wait::until("the new operator has reconciled", HEAL, async || {
        let answer = client.ask(world, &cluster.write_host()).await?;
        wait::when(answer.work_mem == "5MB", || format!("{answer:?}"))
    })
    .await;
    let outcome = async {
        reconciled?;
        let after = judge::one_master(world, &cluster, &client, 3, HEAL).await?;
        for member in &before.members {
            let same = after.member(&member.name).map(|now| (&now.uid, now.restarts));
            ensure!(same == Some((&member.uid, member.restarts)), "{} was replaced: {after}", member.name);
        }
        let now = starts(world, &cluster, &client).await?;
        ensure!(now == started, "PostgreSQL was restarted: {started:?} became {now:?}");
        Ok(())
    }
    .await;
    upgrade(world, &operator, &image(&old)).await?;
    cluster.patch(world, &json!({"spec": {"postgres": {"parameters": {"work_mem": null}}}})).await?;
    outcome?;
    client.finish(world, &cluster).await?;
    Ok(())
}

/// When each member's PostgreSQL started.
pub(crate) async fn starts(
    world: &World,
    cluster: &Cluster,
    client: &Client,
) -> Result<BTreeMap<String, String>> {
    let mut starts = BTreeMap::new();
    for member in cluster.look(world).await?.members {
        let answer = client.ask(world, &cluster.member_host(&member.name)).await?;
        starts.insert(member.name, answer.started);
    }
    Ok(starts)
}

/// The operator's Deployment.
pub(crate) async fn find_operator(world: &World) -> Result<Deployment> {
    let all: Api<Deployment> = Api::all(world.client.clone());
    let selector = ListParams::default().labels("app.kubernetes.io/name=matriarch-operator");
    all.list(&selector).await?.items.into_iter().next().context("no Deployment is labelled as the operator")
}

async fn upgrade(world: &World, operator: &Deployment, change: &serde_json::Value) -> Result<()> {
    let api: Api<Deployment> = world.api(&operator.namespace().unwrap_or_default());
    let name = operator.name_any();
    let changed = api.patch(&name, &PatchParams::default(), &Patch::Strategic(change)).await?;
    rolled_out(&api, &name, changed.metadata.generation).await
}

/// Scales the operator and waits until that is so.
async fn scale(world: &World, operator: &Deployment, replicas: i32) -> Result<()> {
    let api: Api<Deployment> = world.api(&operator.namespace().unwrap_or_default());
    let name = operator.name_any();
    let change = json!({"spec": {"replicas": replicas}});
    let changed = api.patch(&name, &PatchParams::default(), &Patch::Merge(&change)).await?;
    rolled_out(&api, &name, changed.metadata.generation).await
}

pub(crate) async fn rolled_out(api: &Api<Deployment>, name: &str, generation: Option<i64>) -> Result<()> {
    wait::until("the operator is rolled out", HEAL, async || {
        let deployment = api.get(name).await?;
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let status = deployment.status.clone().unwrap_or_default();
        let done = status.observed_generation >= generation
            && status.replicas.unwrap_or(0) == wanted
            && status.updated_replicas.unwrap_or(0) == wanted
            && status.available_replicas.unwrap_or(0) == wanted;
        wait::when(done, || format!("{status:?}"))
    })
    .await?;
    Ok(())
}
