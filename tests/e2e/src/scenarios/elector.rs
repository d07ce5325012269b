//! The elector as a sidecar of an application that asks it every 100 ms, judged by what the application heard.
//!
//! Turned red by: a leader that goes by the record instead of its own deadline (two pods hear their own names), a release that
//! is not written (the deleted leader is waited for), a watch that is not followed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use crate::faults;
use crate::wait;
use crate::world::{World, now};

/// The example's.
const TTL: Duration = Duration::from_secs(10);
/// Catches a hang, measures nothing.
const BOUND: Duration = Duration::from_secs(120);
/// How long an outage of the API server lasts.
const OUTAGE: Duration = Duration::from_secs(60);

/// What one pod heard: microseconds since 1970, and a name.
type Heard = Vec<(u64, String)>;

/// Deleted, killed, without an API server, rolled: who is named when.
pub(crate) async fn sidecar(world: &World) -> Result<()> {
    let namespace = world.namespace("elector").await?;
    apply(world, &namespace).await?;
    let first = agreed(world, &namespace, None).await?;

    let deleted = now();
    delete(world, &namespace, &first, None).await?;
    let second = agreed(world, &namespace, Some(&first)).await?;
    told(world, &namespace, "leader deleted", deleted, &second).await?;

    let killed = now();
    delete(world, &namespace, &second, Some(0)).await?;
    let third = agreed(world, &namespace, Some(&second)).await?;
    told(world, &namespace, "leader killed", killed, &third).await?;

    let stopped = now();
    faults::stop_api(world).await?;
    tokio::time::sleep(OUTAGE).await;
    let back = now();
    faults::mend(world).await?;
    agreed(world, &namespace, None).await?;
    for (pod, heard) in heard(world, &namespace).await? {
        let late = heard.iter().find(|(at, name)| {
            *at > stopped + micros(TTL + Duration::from_secs(1)) && *at < back && !name.is_empty()
        });
        ensure!(late.is_none(), "without the API server {pod} heard {late:?}, past every deadline");
    }

    let rolled = now();
    let restart =
        json!({"spec": {"template": {"metadata": {"annotations": {"rolled": rolled.to_string()}}}}});
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
    let deployments = Api::<DynamicObject>::namespaced_with(world.client.clone(), &namespace, &kind);
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(&restart)).await?;
    let last = agreed(world, &namespace, Some(&third)).await?;
    told(world, &namespace, "rolled", rolled, &last).await?;
    world.remove_namespace(&namespace).await
}

async fn apply(world: &World, namespace: &str) -> Result<()> {
    let file = world.examples.join("elector/web.yaml");
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

async fn delete(world: &World, namespace: &str, pod: &str, grace: Option<u32>) -> Result<()> {
    let parameters = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
    world.api::<Pod>(namespace).delete(pod, &parameters).await.with_context(|| format!("delete {pod}"))?;
    Ok(())
}

/// What the application in each running pod heard.
async fn heard(world: &World, namespace: &str) -> Result<BTreeMap<String, Heard>> {
    let pods = world.api::<Pod>(namespace);
    let mut all = BTreeMap::new();
    for pod in pods.list(&ListParams::default().labels("app=web")).await? {
        let running = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        if let (Some(name), true, None) = (&pod.metadata.name, running, &pod.metadata.deletion_timestamp) {
            let log = LogParams {
                container: Some("app".to_owned()),
                tail_lines: Some(3000),
                ..LogParams::default()
            };
            let text = pods.logs(name, &log).await.with_context(|| format!("the log of {name}"))?;
            all.insert(name.clone(), text.lines().filter_map(line).collect());
        }
    }
    Ok(all)
}

/// `1795292952.918781 {"name":"web-…"}`.
fn line(text: &str) -> Option<(u64, String)> {
    let (at, answer) = text.split_once(' ')?;
    let (seconds, micros) = at.split_once('.')?;
    let at = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    let answer: Value = serde_json::from_str(answer).ok()?;
    Some((at, answer["name"].as_str()?.to_owned()))
}

/// Waits until three pods name the same one of them, and not the one that went.
async fn agreed(world: &World, namespace: &str, gone: Option<&str>) -> Result<String> {
    let (name, _) = wait::until("three pods name one leader", BOUND, async || {
        let heard = heard(world, namespace).await?;
        let last: BTreeMap<_, _> = heard
            .iter()
            .map(|(pod, heard)| (pod.clone(), heard.last().map(|(_, name)| name.clone())))
            .collect();
        let names: Vec<String> = last.values().flatten().cloned().collect();
        let name = names.first().cloned().unwrap_or_default();
        let well = last.len() == 3
            && names.len() == 3
            && names.iter().all(|other| *other == name)
            && last.contains_key(&name)
            && gone != Some(name.as_str());
        Ok(if well { Ok(name) } else { Err(format!("{last:?}")) })
    })
    .await?;
    Ok(name)
}

/// Says how long it took until somebody named `leader`, and how long nobody was named; never two who named themselves at once.
async fn told(world: &World, namespace: &str, what: &str, since: u64, leader: &str) -> Result<()> {
    let heard = heard(world, namespace).await?;
    let Some(first) =
        heard.values().flatten().filter(|(at, name)| *at >= since && name == leader).map(|(at, _)| *at).min()
    else {
        bail!("{what}: nobody named {leader}");
    };
    let mut longest = 0;
    for heard in heard.values() {
        let mut named = since;
        for (at, name) in heard.iter().filter(|(at, _)| *at >= since) {
            if !name.is_empty() {
                longest = longest.max(at.saturating_sub(named).min(at - since));
                named = *at;
            }
        }
    }
    let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
    world.say(format!(
        "{what}: {leader} named after {:.2} s; at most {:.2} s without a name",
        seconds(first - since),
        seconds(longest)
    ));
    // A pod that names itself does so within one look of 100 ms; two must be further apart than that.
    let own: BTreeMap<u64, &String> = heard
        .iter()
        .flat_map(|(pod, heard)| {
            heard.iter().filter(move |(_, name)| name == pod).map(move |(at, _)| (*at, pod))
        })
        .collect();
    let mut last: BTreeMap<&String, u64> = BTreeMap::new();
    let mut leaders: Vec<&String> = Vec::new();
    for (at, pod) in own {
        if leaders.last() != Some(&pod) {
            ensure!(
                !leaders.contains(&pod) || last.get(pod).is_some_and(|before| at - before > 1_000_000),
                "{what}: {pod} and {:?} named themselves in turn",
                leaders.last()
            );
            leaders.push(pod);
        }
        last.insert(pod, at);
    }
    Ok(())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
