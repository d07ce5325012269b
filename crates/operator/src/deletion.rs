//! The end of a cluster, ordered by a finalizer (K15).
//!
//! Pods stop first, while Role, Secrets and record are there for an orderly stop. Then, with `Delete`, claims go by UID,
//! then the record and the kept Secrets; with `Retain` all of these stay, owned by nobody, and a cluster of the same name
//! adopts them. Whatever else there is goes with the PostgresCluster by garbage collection.

use api::{
    DeletionPolicy, PostgresCluster,
    names::{self, DEFAULT_POOL, FINALIZER, labels},
};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    coordination::v1::Lease,
    core::v1::{PersistentVolumeClaim, Pod, Secret},
};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use kubernetes::{CallError, Calls, FieldManager, bounded, delete::Deletion};

/// Adds the finalizer when it is missing. True when it was added now.
pub async fn add_finalizer(calls: &Calls, cluster: &PostgresCluster) -> Result<bool, CallError> {
    if cluster.finalizers().iter().any(|there| there == FINALIZER) {
        return Ok(false);
    }
    let mut finalizers = cluster.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(calls, cluster, finalizers).await?;
    Ok(true)
}

/// Takes the next step of a deletion. True when all is done and the finalizer is gone.
pub async fn delete(calls: &Calls, cluster: &PostgresCluster) -> Result<bool, CallError> {
    if !cluster.finalizers().iter().any(|there| there == FINALIZER) {
        return Ok(true);
    }
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let set = calls.get::<StatefulSet>(&namespace, &names::stateful_set(&name)).await?;
    // One of the same name that is not ours is left alone.
    if let Some(set) = set.filter(|set| owned_by(set.owner_references(), cluster)) {
        if set.metadata.deletion_timestamp.is_none() {
            calls.delete(&set, Deletion::SAME).await?;
        }
        return Ok(false);
    }
    let pods: Vec<Pod> = calls.list(&namespace, &labels::pool_selector_text(&name, DEFAULT_POOL)).await?;
    if !pods.is_empty() {
        return Ok(false);
    }
    if cluster.spec.deletion_policy == DeletionPolicy::Delete {
        delete_kept(calls, &namespace, &name).await?;
    }
    let others = cluster.finalizers().iter().filter(|there| *there != FINALIZER).cloned().collect();
    set_finalizers(calls, cluster, others).await?;
    tracing::info!(namespace, cluster = name, policy = ?cluster.spec.deletion_policy, "cluster deleted");
    Ok(true)
}

async fn delete_kept(calls: &Calls, namespace: &str, name: &str) -> Result<(), CallError> {
    let of_cluster = format!("{}={name}", labels::CLUSTER);
    for claim in calls.list::<PersistentVolumeClaim>(namespace, &of_cluster).await? {
        calls.delete(&claim, Deletion::SAME).await?;
    }
    // The record goes after the volumes: volumes without a record would look like a lost one.
    if let Some(lease) = calls.get::<Lease>(namespace, &names::lease(name)).await?
        && is_of(lease.labels(), name)
    {
        calls.delete(&lease, Deletion::SAME).await?;
    }
    for secret in [names::ca_secret(name), names::superuser_secret(name), names::app_secret(name)] {
        if let Some(secret) = calls.get::<Secret>(namespace, &secret).await?
            && is_of(secret.labels(), name)
        {
            calls.delete(&secret, Deletion::SAME).await?;
        }
    }
    Ok(())
}

fn is_of(there: &std::collections::BTreeMap<String, String>, cluster: &str) -> bool {
    there.get(labels::CLUSTER).is_some_and(|name| name == cluster)
}

fn owned_by(
    owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference],
    cluster: &PostgresCluster,
) -> bool {
    owners.iter().any(|owner| Some(&owner.uid) == cluster.metadata.uid.as_ref())
}

/// A merge patch on the version that was read: other finalizers are never lost.
async fn set_finalizers(
    calls: &Calls,
    cluster: &PostgresCluster,
    finalizers: Vec<String>,
) -> Result<(), CallError> {
    let patch = serde_json::json!({"metadata": {
        "uid": cluster.metadata.uid,
        "resourceVersion": cluster.metadata.resource_version,
        "finalizers": finalizers,
    }});
    let namespace = cluster.namespace().unwrap_or_default();
    let api = Api::<PostgresCluster>::namespaced(calls.client().clone(), &namespace);
    let params = PatchParams {
        field_manager: Some(FieldManager::OPERATOR.as_str().to_owned()),
        ..PatchParams::default()
    };
    let (name, patch) = (cluster.name_any(), Patch::Merge(&patch));
    bounded("set finalizers", calls.bound(), api.patch_metadata(&name, &params, &patch)).await.map(drop)
}
