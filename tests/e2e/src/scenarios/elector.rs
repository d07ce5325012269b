//! The elector as a sidecar of an application that asks it every 100 ms, judged by what the application heard.
//!
//! Turned red by: a leader that goes by the record instead of its own deadline (an isolated pod claims beside its
//! successor), a release that is not written (the deleted leader is waited for), a watch that is not followed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use crate::cluster::tell;
use crate::faults;
use crate::hearing::Hearing;
use crate::wait;
use crate::world::{World, now};

/// The example's.
const TTL: Duration = Duration::from_secs(10);
/// A leader stops by itself after so much of the TTL.
const DEADLINE: Duration = Duration::from_secs(8);
/// What it should take after a release that was written, and in a rolling update.
const AT_ONCE: Duration = Duration::from_secs(1);
/// What it should take on top of the TTL when nobody released.
const SLACK: Duration = Duration::from_secs(1);
/// Catches a hang, measures nothing.
const BOUND: Duration = Duration::from_secs(120);
/// How long an outage of the API server lasts.
const OUTAGE: Duration = Duration::from_secs(60);

/// Deleted, killed, cut off, without an API server, rolled: who claims when.
pub(crate) async fn sidecar(world: &World) -> Result<()> {
    let namespace = world.namespace("elector").await?;
    apply(world, &namespace).await?;
    let hearing = Hearing::start(world.api::<Pod>(&namespace), "app=web");
    let first = agreed(&hearing, None).await?;
    let second = deleted(world, &namespace, &hearing, &first).await?;
    let third = killed(world, &namespace, &hearing, &second).await?;
    resident(world, &hearing).await?;
    let fourth = cut_off(world, &hearing, &third).await?;
    let fifth = without_api_server(world, &hearing, &fourth).await?;
    rolled(world, &namespace, &hearing, &fifth).await?;
    hearing.judge()?;
    world.remove_namespace(&namespace).await
}

async fn deleted(world: &World, namespace: &str, hearing: &Hearing, leader: &str) -> Result<String> {
    let since = now();
    world
        .api::<Pod>(namespace)
        .delete(leader, &DeleteParams::default())
        .await
        .context("delete the leader")?;
    let next = agreed(hearing, Some(leader)).await?;
    let (named, between) = (hearing.first_named(&next, since)?, hearing.between(leader, &next, since)?);
    world.say(format!("leader deleted: {:.2} s without a leader", between.as_secs_f64()));
    tell(world, "until the next is named", named, AT_ONCE, BOUND)?;
    hearing.judge()?;
    Ok(next)
}

async fn killed(world: &World, namespace: &str, hearing: &Hearing, leader: &str) -> Result<String> {
    let pod = world.api::<Pod>(namespace).get(leader).await?;
    let node = node_of(&pod)?;
    let id = container(&pod, "elector").context("the elector's container is not known")?;
    let since = now();
    faults::kill_container(world, &node, &id, 1).await?;
    let next = agreed(hearing, Some(leader)).await?;
    let named = hearing.first_named(&next, since)?;
    world.say("leader killed");
    tell(world, "until the next is named", named, TTL + SLACK, BOUND)?;
    hearing.judge()?;
    Ok(next)
}

async fn cut_off(world: &World, hearing: &Hearing, leader: &str) -> Result<String> {
    let living = hearing.living().await?;
    let pod = living.iter().find(|pod| pod.name_any() == leader).context("the leader does not run")?;
    let since = now();
    faults::cut(world, &node_of(pod)?).await?;
    let others: Vec<String> =
        living.iter().map(kube::ResourceExt::name_any).filter(|name| name != leader).collect();
    let (next, _) = wait::until("the others name one of them", BOUND, async || {
        Ok(one_name(hearing, &others).filter(|name| name != leader).ok_or_else(|| said(hearing, &others)))
    })
    .await?;
    let named = hearing.first_named(&next, since)?;
    faults::mend(world).await?;
    agreed(hearing, None).await?;
    let between = hearing.between(leader, &next, since)?;
    let before = between.as_secs_f64();
    world.say(format!("leader cut off: it stopped claiming {before:.2} s before the next began"));
    tell(world, "until the next is named", named, TTL + SLACK, BOUND)?;
    hearing.judge()?;
    Ok(next)
}

async fn without_api_server(world: &World, hearing: &Hearing, leader: &str) -> Result<String> {
    faults::stop_api(world).await?;
    let stopped = now();
    tokio::time::sleep(OUTAGE).await;
    let back = now();
    faults::mend(world).await?;
    let next = agreed(hearing, None).await?;
    let last = hearing.last_claim(stopped..back);
    let claimed = last.as_ref().map_or(Duration::ZERO, |(_, heard)| micros(heard.asked - stopped));
    world.say(format!(
        "60 s without the API server: the last claim after {:.2} s; {} leads {:.2} s after its return",
        claimed.as_secs_f64(),
        if next == leader { "the same" } else { "another" },
        hearing.first_named(&next, back)?.as_secs_f64()
    ));
    ensure!(claimed <= DEADLINE, "without the API server {last:?} claimed for {claimed:?}");
    hearing.judge()?;
    Ok(next)
}

async fn rolled(world: &World, namespace: &str, hearing: &Hearing, leader: &str) -> Result<()> {
    let since = now();
    let restart = json!({"spec": {"template": {"metadata": {"annotations": {"rolled": since.to_string()}}}}});
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
    let deployments = Api::<DynamicObject>::namespaced_with(world.client.clone(), namespace, &kind);
    let old: Vec<String> = hearing.living().await?.iter().map(kube::ResourceExt::name_any).collect();
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(&restart)).await?;
    wait::until("all pods are new", BOUND, async || {
        let living = hearing.living().await?;
        let there: Vec<String> = living.iter().map(kube::ResourceExt::name_any).collect();
        wait::when(there.len() == 3 && !there.iter().any(|pod| old.contains(pod)), || there.join(", "))
    })
    .await?;
    let next = agreed(hearing, Some(leader)).await?;
    let longest = hearing.longest_without_leader(since..now());
    world.say(format!("rolled: {next} leads"));
    tell(world, "longest without a leader", longest, AT_ONCE, BOUND)
}

/// Resident memory of every elector, which must stay below 10 MiB.
async fn resident(world: &World, hearing: &Hearing) -> Result<()> {
    let mut most = 0;
    for pod in hearing.living().await? {
        let id = container(&pod, "elector").context("the elector's container is not known")?;
        let id = id.rsplit('/').next().unwrap_or_default().to_owned();
        let script = format!(
            "for p in $(grep -l {id} /proc/[0-9]*/cgroup | cut -d/ -f3); do grep VmRSS /proc/$p/status; done"
        );
        let told = world.rig(&["shell", &node_of(&pod)?, "sh", "-c", &script]).await?;
        let kib = told.split_whitespace().find_map(|word| word.parse::<u64>().ok());
        most = most.max(kib.with_context(|| format!("no size of {}: {told}", pod.name_any()))?);
    }
    world.say(format!("resident: at most {:.1} MiB", mib(most)));
    ensure!(most < 10 * 1024, "an elector holds {most} KiB");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn node_of(pod: &Pod) -> Result<String> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("the pod has no node")
}

fn container(pod: &Pod, name: &str) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|it| it.name == name)?.container_id.clone()
}

async fn apply(world: &World, namespace: &str) -> Result<()> {
    let file = world.tree.join("examples/elector/web.yaml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let text =
        text.replace("matriarch:0.1.0", "rig.test/matriarch:dev").replace("debian:13", "rig.test/pg:17");
    for document in text.split("\n---\n") {
        let mut object: Value = serde_yaml::from_str(document).context("parse the example")?;
        if object["kind"] == "RoleBinding" {
            object["subjects"][0]["namespace"] = namespace.into();
        }
        let (group, version) =
            object["apiVersion"].as_str().context("an apiVersion")?.rsplit_once('/').unwrap_or(("", "v1"));
        let version = if group.is_empty() { "v1" } else { version };
        let kind = GroupVersionKind::gvk(group, version, object["kind"].as_str().context("a kind")?);
        let api = Api::<DynamicObject>::namespaced_with(
            world.client.clone(),
            namespace,
            &ApiResource::from_gvk(&kind),
        );
        let name = object["metadata"]["name"].as_str().context("a name")?.to_owned();
        api.patch(&name, &PatchParams::apply("matriarch-e2e").force(), &Patch::Apply(&object))
            .await
            .with_context(|| format!("apply {} {name}", kind.kind))?;
    }
    Ok(())
}

/// Waits until three pods name the same one of them, and not the one that went.
async fn agreed(hearing: &Hearing, gone: Option<&str>) -> Result<String> {
    let (name, _) = wait::until("three pods name one leader", BOUND, async || {
        let pods: Vec<String> = hearing.living().await?.iter().map(kube::ResourceExt::name_any).collect();
        let name = one_name(hearing, &pods)
            .filter(|name| pods.len() == 3 && pods.contains(name) && gone != Some(name.as_str()));
        Ok(name.ok_or_else(|| said(hearing, &pods)))
    })
    .await?;
    Ok(name)
}

/// The name that all these pods heard last.
fn one_name(hearing: &Hearing, pods: &[String]) -> Option<String> {
    let mut names = pods.iter().map(|pod| hearing.last(pod).map(|heard| heard.name));
    let first = names.next()??;
    (!first.is_empty() && names.all(|name| name.as_deref() == Some(first.as_str()))).then_some(first)
}

fn said(hearing: &Hearing, pods: &[String]) -> String {
    let last: BTreeMap<&String, Option<String>> =
        pods.iter().map(|pod| (pod, hearing.last(pod).map(|heard| heard.name))).collect();
    format!("{last:?}")
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}
