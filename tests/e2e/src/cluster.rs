//! A PostgresCluster under test: made from an example, changed, awaited, removed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::seen::Seen;
use crate::wait;
use crate::world::World;

/// From apply to whole; catches a hang, measures nothing.
pub(crate) const FORM: Duration = Duration::from_secs(180);
/// From the end of a fault to whole.
pub(crate) const HEAL: Duration = Duration::from_secs(180);

const MANAGER: &str = "matriarch-e2e";

/// One cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// When its manifest was applied.
    pub(crate) applied: Instant,
    /// The Service that leads to the master.
    pub(crate) write_service: String,
    /// The Service that leads to the followers.
    pub(crate) read_service: String,
}

impl Cluster {
    /// Applies an example, changed by a merge patch.
    pub(crate) async fn from_example(
        world: &World,
        namespace: &str,
        file: &str,
        change: &Value,
    ) -> Result<Self> {
        let path = world.tree.join("examples").join(file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut manifest: Value =
            serde_yaml::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        merge(&mut manifest, change);
        Self::apply(world, namespace, manifest).await
    }

    /// Applies a manifest of one PostgresCluster.
    pub(crate) async fn apply(world: &World, namespace: &str, mut manifest: Value) -> Result<Self> {
        let name = manifest["metadata"]["name"].as_str().context("the manifest has no name")?.to_owned();
        merge(&mut manifest, &json!({"metadata": {"namespace": namespace}}));
        let service = |kind: &str, default: String| {
            manifest["spec"]["services"][kind]["name"].as_str().map_or(default, str::to_owned)
        };
        let cluster = Self {
            namespace: namespace.to_owned(),
            write_service: service("write", names::write_service(&name)),
            read_service: service("read", names::read_service(&name)),
            name,
            applied: Instant::now(),
        };
        clusters(world, namespace)
            .patch(&cluster.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&manifest))
            .await
            .with_context(|| format!("apply {}", cluster.name))?;
        Ok(cluster)
    }

    /// Changes the resource by a merge patch.
    pub(crate) async fn patch(&self, world: &World, change: &Value) -> Result<()> {
        clusters(world, &self.namespace)
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(change))
            .await
            .with_context(|| format!("change {} by {change}", self.name))?;
        Ok(())
    }

    /// Deletes the resource; its finalizer ends the pods.
    pub(crate) async fn delete(&self, world: &World) -> Result<()> {
        clusters(world, &self.namespace)
            .delete(&self.name, &DeleteParams::default())
            .await
            .with_context(|| format!("delete {}", self.name))?;
        Ok(())
    }

    /// Looks once.
    pub(crate) async fn look(&self, world: &World) -> Result<Seen> {
        Seen::look(world, &self.namespace, &self.name).await
    }

    /// Waits until everybody is there and everything agrees on the master.
    pub(crate) async fn whole(&self, world: &World, instances: usize, bound: Duration) -> Result<Seen> {
        let what = format!("{} whole with {instances} members", self.name);
        let (seen, _) = wait::until(&what, bound, async || {
            let seen = self.look(world).await?;
            Ok(match seen.deficiency(instances) {
                None => Ok(seen),
                Some(why) => Err(format!("{why}: {seen}")),
            })
        })
        .await?;
        Ok(seen)
    }

    /// Waits until everything agrees on one master, whoever else is missing.
    pub(crate) async fn agreed(&self, world: &World, bound: Duration) -> Result<Seen> {
        let what = format!("{} agreed on its master", self.name);
        let (seen, _) = wait::until(&what, bound, async || {
            let seen = self.look(world).await?;
            Ok(match seen.disagreement() {
                None => Ok(seen),
                Some(why) => Err(format!("{why}: {seen}")),
            })
        })
        .await?;
        Ok(seen)
    }

    /// Host name of the Service that leads to the master.
    pub(crate) fn write_host(&self) -> String {
        names::service_host(&self.write_service, &self.namespace)
    }

    /// Host name of the Service that leads to the followers.
    pub(crate) fn read_host(&self) -> String {
        names::service_host(&self.read_service, &self.namespace)
    }

    /// Host name of a member.
    pub(crate) fn member_host(&self, pod: &str) -> String {
        names::member_host(&self.name, &self.namespace, pod)
    }

    /// Deletes a member's pod; a grace of 0 is deletion by force.
    pub(crate) async fn delete_pod(&self, world: &World, pod: &str, grace: Option<u32>) -> Result<()> {
        let parameters = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        world
            .api::<Pod>(&self.namespace)
            .delete(pod, &parameters)
            .await
            .with_context(|| format!("delete pod {pod}"))?;
        Ok(())
    }
}

/// A member's view and decisions, for people.
pub(crate) async fn status_page(world: &World, namespace: &str, pod: &str) -> Result<Value> {
    world.page(namespace, pod, names::ports::HTTP, "status").await
}

/// Untyped on purpose: a test must be able to write what the types forbid.
pub(crate) fn clusters(world: &World, namespace: &str) -> Api<kube::core::DynamicObject> {
    let resource = kube::core::ApiResource::erase::<api::PostgresCluster>(&());
    Api::namespaced_with(world.client.clone(), namespace, &resource)
}

/// Deletes all clusters of a namespace and their pods at once, with their volumes.
pub(crate) async fn delete_all(world: &World, namespace: &str) -> Result<()> {
    let resources = clusters(world, namespace);
    let list = resources.list(&ListParams::default()).await.context("list clusters")?;
    for cluster in list {
        let Some(name) = cluster.metadata.name else { continue };
        let volumes = json!({"spec": {"deletionPolicy": "Delete"}});
        // A cluster that is already going, or gone, is what was wanted.
        let _ = resources.patch(&name, &PatchParams::default(), &Patch::Merge(&volumes)).await;
        let _ = resources.delete(&name, &DeleteParams::default()).await;
    }
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    world
        .api::<Pod>(namespace)
        .delete_collection(&now, &ListParams::default())
        .await
        .with_context(|| format!("delete the pods of {namespace}"))?;
    Ok(())
}

/// RFC 7386.
pub(crate) fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(target) = target else { return };
    for (key, value) in change {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Fails when a wait took longer than its target by a factor that only a hang explains; else tells.
pub(crate) fn tell(
    world: &World,
    what: &str,
    took: Duration,
    target: Duration,
    bound: Duration,
) -> Result<()> {
    let above = took > target;
    let mark = if above { "  ABOVE TARGET" } else { "" };
    if above {
        let before = took + Duration::from_secs(5);
        world
            .to_explain
            .borrow_mut()
            .push(Timestamp::now().saturating_sub(before).unwrap_or(Timestamp::MIN)..Timestamp::now());
    }
    world.say(format!("{what}: {:.2} s (target {:.1} s){mark}", took.as_secs_f64(), target.as_secs_f64()));
    ensure!(took <= bound, "{what}: {took:?} is more than the bound of {bound:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_adds_replaces_and_removes() {
        let mut value = json!({"a": 1, "b": {"c": 1, "d": 2}});
        merge(&mut value, &json!({"a": null, "b": {"c": 3}, "e": {"f": 1}}));
        assert_eq!(value, json!({"b": {"c": 3, "d": 2}, "e": {"f": 1}}));
    }
}
