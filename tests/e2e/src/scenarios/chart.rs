//! The operator's chart comes and goes; what it made stays.
//!
//! Turned red by: definitions or databases that go with the release, an operator that looks beyond its namespaces, one
//! that needs cluster-wide rights for its own namespaces.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Api;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::client::gaps;
use crate::cluster::{Cluster, FORM, HEAL, tell};
use crate::judge;
use crate::scenarios::control::{find_operator, starts};
use crate::scenarios::failover::{HANG, bystander};
use crate::wait;
use crate::world::{World, now};

const RELEASE: &str = "matriarch";

/// Uninstalled, installed for one namespace, installed for all again.
pub(crate) async fn comes_and_goes(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let before = cluster.whole(world, 3, FORM).await?;
    let client = bystander(world, &cluster, &before).await?;
    let began = starts(world, &cluster, &client).await?;
    let namespace = find_operator(world).await?.namespace().context("the operator has no namespace")?;
    let text =
        world.rig(&["helm", "get", "values", RELEASE, "--namespace", &namespace, "--output", "json"]).await?;
    let values: Value = serde_json::from_str(&text).context("read the release's values")?;

    let since = now();
    world
        .rig(&["helm", "uninstall", RELEASE, "--namespace", &namespace, "--wait", "--timeout", "60s"])
        .await?;
    let outcome = away(world, &cluster, &namespace, &values).await;
    // Whatever happened: the others need the operator as it was.
    install(world, &namespace, &values).await?;
    let other = outcome?;
    other.whole(world, 3, FORM).await?;
    world.say("installed for all namespaces again: the other cluster forms");
    world.remove_namespace(&other.namespace).await?;

    let after = judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    ensure!(after.leader() == before.leader(), "the master changed: {before} became {after}");
    ensure!(starts(world, &cluster, &client).await? == began, "PostgreSQL was restarted");
    let (text, longest) = gaps(&client.between(world, since, now()).await?);
    world.say(format!("gap all the while: {text}"));
    tell(world, "longest gap", longest, std::time::Duration::from_secs(3), HANG)?;
    cluster.patch(world, &json!({"spec": {"postgres": {"parameters": {"work_mem": null}}}})).await?;
    client.finish(world, &cluster).await?;
    Ok(())
}

/// With no operator, then with one for the cluster's own namespace; returns a cluster elsewhere that was left alone.
async fn away(world: &World, cluster: &Cluster, namespace: &str, values: &Value) -> Result<Cluster> {
    let seen = cluster.look(world).await?;
    ensure!(
        seen.cluster.is_some() && seen.members.len() == 3,
        "the databases went with the operator: {seen}"
    );
    world.say("uninstalled: definitions and databases stay");

    let mut narrow = values.clone();
    crate::cluster::merge(&mut narrow, &json!({"watchNamespaces": [cluster.namespace]}));
    install(world, namespace, &narrow).await?;
    let bindings: Api<ClusterRoleBinding> = Api::all(world.client.clone());
    let bindings =
        bindings.list(&ListParams::default().labels("app.kubernetes.io/name=matriarch-operator")).await?;
    ensure!(bindings.items.is_empty(), "bound cluster-wide: {:?}", bindings.items);

    let elsewhere = world.namespace("elsewhere").await?;
    let other = Cluster::from_example(world, &elsewhere, "minimal.yaml", &json!({})).await?;
    cluster.patch(world, &json!({"spec": {"postgres": {"parameters": {"work_mem": "6MB"}}}})).await?;
    let observer = bystander(world, cluster, &seen).await?;
    wait::until("the operator of this namespace acts", HEAL, async || {
        let answer = observer.ask(world, &cluster.write_host()).await?;
        wait::when(answer.work_mem == "6MB", || format!("{answer:?}"))
    })
    .await?;
    observer.finish(world, cluster).await?;
    let left_alone = other.look(world).await?;
    ensure!(
        left_alone.members.is_empty() && left_alone.record.is_none(),
        "an operator for {} acts in {elsewhere}: {left_alone}",
        cluster.namespace
    );
    world.say(
        "installed for one namespace: it acts there, not elsewhere, and is bound to no cluster-wide role",
    );
    Ok(other)
}

async fn install(world: &World, namespace: &str, values: &Value) -> Result<()> {
    let chart = world.tree.join("charts/matriarch-operator");
    let file = tempfile::NamedTempFile::new().context("make a file for the values")?;
    std::fs::write(file.path(), values.to_string()).context("write the values")?;
    let (chart, file) = (chart.display().to_string(), file.path().display().to_string());
    let arguments = [
        "helm",
        "upgrade",
        "--install",
        RELEASE,
        &chart,
        "--namespace",
        namespace,
        "--wait",
        "--timeout",
        "120s",
        "--values",
        &file,
    ];
    world.rig(&arguments).await.map(drop)
}
