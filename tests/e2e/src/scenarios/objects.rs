//! What a user deletes by mistake comes back, but not while the cluster is paused.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::{conditions, names};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::client::gaps;
use crate::cluster::{Cluster, FORM, HEAL, tell};
use crate::faults::Fault;
use crate::judge;
use crate::scenarios::failover::{HANG, bystander, next_epoch};
use crate::wait;
use crate::world::{World, now};

/// How long a paused cluster is watched for what must not happen.
const NOTHING_HAPPENS: Duration = Duration::from_secs(6);

/// Turned red by: a kind that the operator does not watch, a slice that only a failover writes again, a new CA or password
/// in place of the old one while members still use it.
pub(crate) async fn come_back(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let before = cluster.whole(world, 3, FORM).await?;
    let client = bystander(world, &cluster, &before).await?;
    let since = now();
    let name = cluster.name.as_str();
    again::<ConfigMap>(world, &cluster, &names::settings(name)).await?;
    again::<PodDisruptionBudget>(world, &cluster, &names::disruption_budget(name)).await?;
    again::<RoleBinding>(world, &cluster, &names::member_role(name)).await?;
    again::<Role>(world, &cluster, &names::member_role(name)).await?;
    for secret in [names::superuser_secret(name), names::server_secret(name)] {
        again::<Secret>(world, &cluster, &secret).await?;
    }
    for service in [names::headless_service(name), names::read_service(name), names::write_service(name)] {
        again::<Service>(world, &cluster, &service).await?;
    }
    for service in [names::read_service(name), names::write_service(name)] {
        again::<EndpointSlice>(world, &cluster, &names::endpoint_slice(&service, "ipv4")).await?;
    }
    let after = judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    ensure!(after.leader() == before.leader(), "the master changed: {before} became {after}");
    let (text, longest) = gaps(&client.between(world, since, now()).await?);
    world.say(format!("gap while all of them were deleted: {text}"));
    // The Service has a new address, and the cluster's DNS keeps the old one for its TTL of 30 s.
    tell(world, "longest gap", longest, Duration::from_secs(32), HANG)?;
    client.finish(world, &cluster).await?;

    // Nobody knows the old password any more: who comes later gets in with the one that the new Secret says.
    again::<Secret>(world, &cluster, &names::app_secret(name)).await?;
    let client = bystander(world, &cluster, &after).await?;

    // With the StatefulSet go its pods, all at once: no data may go with them.
    let since = now();
    again::<StatefulSet>(world, &cluster, &names::stateful_set(name)).await?;
    let after = judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    ensure!(
        after
            .members
            .iter()
            .all(|member| before.member(&member.name).is_some_and(|old| old.uid != member.uid)),
        "the pods of the old StatefulSet stayed: {after}"
    );
    client.resumed(world, now()).await?;
    let (text, longest) = gaps(&client.between(world, since, now()).await?);
    world.say(format!("gap while the StatefulSet and all pods were gone: {text}"));
    tell(world, "longest gap", longest, Duration::from_secs(30), Duration::from_secs(120))?;
    client.finish(world, &cluster).await?;
    Ok(())
}

/// Turned red by: a write of the operator while paused, an election that asks the operator.
pub(crate) async fn paused(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let before = cluster.whole(world, 3, FORM).await?;
    let client = bystander(world, &cluster, &before).await?;
    cluster.patch(world, &json!({"spec": {"paused": true}})).await?;
    wait::until("the pause is told", HEAL, async || {
        let seen = cluster.look(world).await?;
        let told = seen.condition(conditions::types::PROGRESSING);
        let paused = told.as_ref().is_some_and(|(_, reason, _)| reason == conditions::reasons::PAUSED);
        wait::when(paused, || format!("{told:?}"))
    })
    .await?;
    let budget = names::disruption_budget(&cluster.name);
    let budgets = world.api::<PodDisruptionBudget>(&cluster.namespace);
    budgets.delete(&budget, &DeleteParams::default()).await?;
    let since = now();
    Fault::Postmaster.make(world, &cluster, before.master()?).await?;
    next_epoch(world, &cluster, &before).await?;
    client.resumed(world, now()).await?;
    let (text, longest) = gaps(&client.between(world, since, now()).await?);
    world.say(format!("paused, postmaster killed: gap {text}"));
    tell(world, "longest gap", longest, Duration::from_secs(3), HANG)?;
    // The time in which nothing happens, not a wait for anything.
    tokio::time::sleep(NOTHING_HAPPENS).await;
    ensure!(budgets.get_opt(&budget).await?.is_none(), "a paused cluster's {budget} came back");
    cluster.patch(world, &json!({"spec": {"paused": false}})).await?;
    wait::until("the deleted object comes back after the pause", HEAL, async || {
        wait::when(budgets.get_opt(&budget).await?.is_some(), || format!("no {budget}"))
    })
    .await?;
    judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    client.finish(world, &cluster).await?;
    Ok(())
}

/// Deletes an object and waits until there is another one of its name.
async fn again<K>(world: &World, cluster: &Cluster, name: &str) -> Result<()>
where
    K: kube::Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let objects = world.api::<K>(&cluster.namespace);
    let old = objects.get(name).await.with_context(|| format!("get {kind} {name}"))?.uid();
    objects.delete(name, &DeleteParams::default()).await.with_context(|| format!("delete {kind} {name}"))?;
    let ((), took) = wait::until(&format!("{kind} {name} is there again"), HEAL, async || {
        let found = objects.get_opt(name).await?;
        let back =
            found.as_ref().is_some_and(|new| new.uid() != old && new.meta().deletion_timestamp.is_none());
        wait::when(back, || format!("{:?}", found.map(|found| found.meta().clone())))
    })
    .await?;
    world.say(format!("{kind} {name} came back after {:.1} s", took.as_secs_f64()));
    Ok(())
}
