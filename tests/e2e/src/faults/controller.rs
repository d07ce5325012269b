//! The controller scaled down, and killed.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::scenarios::control::rolled_out;
use crate::world::World;

/// How many it should have.
pub(super) async fn replicas(world: &World, namespace: &str, name: &str) -> Result<i32> {
    let deployment = world.api::<Deployment>(namespace).get(name).await.context("look at the controller")?;
    Ok(deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1))
}

/// Scales it and waits until that is so.
pub(super) async fn scale(world: &World, namespace: &str, name: &str, replicas: i32) -> Result<()> {
    let api: Api<Deployment> = world.api(namespace);
    let change = json!({"spec": {"replicas": replicas}});
    let changed = api.patch(name, &PatchParams::default(), &Patch::Merge(&change)).await;
    let changed = changed.with_context(|| format!("scale {name} to {replicas}"))?;
    rolled_out(&api, name, changed.metadata.generation).await
}

/// SIGKILL to every process of this program, on every node.
pub(super) async fn kill(world: &World, program: &str) -> Result<()> {
    // The kernel keeps 15 characters of a name; the command line keeps all of it.
    let script = format!(
        "for file in /proc/[0-9]*/cmdline; do \
         case \"$(tr '\\0' ' ' < $file 2>/dev/null)\" in {program}' '*|*/{program}' '*) \
         pid=${{file#/proc/}}; kill -9 ${{pid%/cmdline}} && echo killed;; esac; done; true"
    );
    let mut killed = 0;
    for node in world.nodes().await? {
        killed += world.rig(&["shell", &node, "sh", "-c", &script]).await?.lines().count();
    }
    ensure!(killed > 0, "no process of {program} on any node");
    Ok(())
}
