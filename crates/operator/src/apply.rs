//! Writes what was prepared, in an order that is safe to stop after any write.
//!
//! Rights before those who need them, Secrets and Services before pods, the record before the first volume (a volume
//! without a record means a lost record), the StatefulSet last. The destructuring has no `..`: an object that nobody
//! writes does not compile.

use std::collections::BTreeSet;

use api::names;
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, PersistentVolumeClaim, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::api::{Patch, PatchParams};
use kubernetes::{
    CallError, Calls, FieldManager, bounded,
    delete::{Deleted, Deletion},
    record::{Created, RecordRead, RecordStore},
    slices::{Family, Slices},
};

use crate::{
    build::config_map,
    cluster::ValidatedCluster,
    dereference::Observed,
    prepared::{Decision, Prepared, claim_template_differs},
};

mod applier;
pub mod dry_run;
mod give_up;
mod selector;

pub use applier::{Applier, ApplyError};

/// What was written, for the status and for Events.
#[derive(Debug, Default)]
pub struct Applied {
    /// The record was made now.
    pub record_made: bool,
    /// The pod that was deleted, and why.
    pub deleted: Option<(String, String)>,
    /// The StatefulSet was deleted to change its claim template; it is made again at once.
    pub claim_template_changed: bool,
    /// Services of routes that had a selector, or slices that Kubernetes made of one.
    pub selectors_taken_away: Vec<String>,
    /// The first claim that did not grow. Everything else was written: a class that cannot grow must not cost a cluster
    /// its care.
    pub not_grown: Option<ApplyError>,
}

/// Tells members that the operator is paused, once.
pub async fn tell_of_pause(applier: &Applier, cluster: &ValidatedCluster) -> Result<(), ApplyError> {
    let name = names::settings(&cluster.name);
    let there = applier.calls().get::<ConfigMap>(&cluster.namespace, &name).await;
    let kind = || "ConfigMap".to_owned();
    let there = there.map_err(|source| ApplyError::Object { kind: kind(), name: name.clone(), source })?;
    let Some(there) = there else { return Ok(()) };
    if let Some(settings) = config_map::paused(cluster, &there).map_err(ApplyError::Settings)? {
        applier.apply(cluster, &settings).await?;
    }
    Ok(())
}

/// Writes everything.
pub async fn apply(
    applier: &Applier,
    cluster: &ValidatedCluster,
    observed: &Observed,
    decision: &Decision,
    prepared: Prepared,
) -> Result<Applied, ApplyError> {
    let Prepared {
        service_account,
        role,
        role_binding,
        superuser,
        app,
        certificates,
        headless,
        write,
        read,
        routes,
        disruption_budget,
        templates,
        stateful_set,
        growing_claims,
        create_record,
    } = prepared;
    let calls = applier.calls();
    let mut done = Applied::default();

    applier.apply(cluster, &service_account).await?;
    applier.apply(cluster, &role).await?;
    applier.apply(cluster, &role_binding).await?;

    let crate::build::certificates::Certificates { authority, server, peer, client, bundle: _, rotation: _ } =
        certificates;
    for secret in [superuser, app, authority, server, peer, client] {
        applier.apply(cluster, &secret).await?;
    }

    applier.apply(cluster, &headless).await?;
    let mut families = Vec::new();
    for (service, route) in [write, read].iter().zip(&routes) {
        let service = applier.apply(cluster, service).await?;
        let taken = selector::take_away(calls, &cluster.namespace, &service).await;
        if taken.map_err(|source| ApplyError::Selector { source })? {
            done.selectors_taken_away.push(route.service.clone());
        }
        let spec = service.spec.unwrap_or_default();
        for family in spec.ip_families.unwrap_or_default() {
            let kind = if family == Family::V6.as_str() { Family::V6 } else { Family::V4 };
            let slices = Slices::new(calls.clone(), FieldManager::OPERATOR);
            slices.create_missing(route, kind).await.map_err(|source| ApplyError::Slice { source })?;
            if !families.contains(&family) {
                families.push(family);
            }
        }
    }

    let services: BTreeSet<String> = routes
        .iter()
        .map(|route| route.service.clone())
        .chain([names::headless_service(&cluster.name)])
        .collect();
    delete_renamed(calls, cluster, &services).await.map_err(|source| ApplyError::Orphan { source })?;

    if create_record {
        done.record_made = make_record(calls, cluster).await?;
    }

    let settings = config_map::member_settings(cluster, &decision.plan.wishes, &families);
    let settings = config_map::settings(cluster, &settings).map_err(ApplyError::Settings)?;
    applier.apply(cluster, &settings).await?;
    applier.apply(cluster, &templates).await?;
    applier.apply(cluster, &disruption_budget).await?;

    for claim in &growing_claims {
        let name = || claim.metadata.name.clone().unwrap_or_default();
        if let Err(source) = grow(calls, cluster, claim).await {
            done.not_grown.get_or_insert(ApplyError::Grow { claim: name(), source });
        }
    }
    if let Some(there) =
        observed.stateful_set.as_ref().filter(|there| claim_template_differs(there, &stateful_set))
    {
        let deletion = calls.delete(there, Deletion::ORPHAN).await;
        deletion.map_err(|source| ApplyError::ClaimTemplate { source })?;
        done.claim_template_changed = true;
        return Ok(done);
    }
    applier.apply(cluster, &stateful_set).await?;

    if let Some(claim) = &decision.plan.delete_claim
        && !give_up::give_up(calls, cluster, observed, claim, decision.plan.delete.as_ref())
            .await
            .map_err(|source| ApplyError::Claim { source })?
    {
        return Ok(done);
    }
    if let Some(deletion) = &decision.plan.delete
        && let Some(pod) = observed.pod(&deletion.pod)
        && pod.metadata.uid.as_deref() == Some(deletion.uid.as_str())
    {
        let deleted = calls.delete(pod, Deletion::UNCHANGED).await;
        if deleted.map_err(|source| ApplyError::DeletePod { source })? == Deleted::Accepted {
            done.deleted = Some((deletion.pod.clone(), deletion.why.clone()));
        }
    }
    Ok(done)
}

/// K3: empties slices whose pod is gone or has another address, at the version that was read.
pub async fn empty_stale_slices(
    calls: &Calls,
    routes: &[kubernetes::slices::Route],
    observed: &Observed,
) -> Result<Vec<String>, CallError> {
    let mut emptied = Vec::new();
    let slices = Slices::new(calls.clone(), FieldManager::OPERATOR);
    for route in routes {
        for family in [Family::V4, Family::V6] {
            let name = route.slice_name(family);
            let Some(seen) = observed.slice(&name).filter(|seen| !seen.is_empty()) else { continue };
            if crate::stale::is_stale(seen, &observed.pods) && slices.empty(route, family, seen).await? {
                emptied.push(name);
            }
        }
    }
    Ok(emptied)
}

/// Services that were renamed, with their slices: nobody would ever point the old ones anywhere again.
async fn delete_renamed(
    calls: &Calls,
    cluster: &ValidatedCluster,
    wanted: &BTreeSet<String>,
) -> Result<(), CallError> {
    let selector = format!("{}={}", names::labels::CLUSTER, cluster.name);
    let ours = |metadata: &ObjectMeta| {
        metadata.owner_references.iter().flatten().any(|owner| owner.uid == cluster.uid)
    };
    for service in calls.list::<Service>(&cluster.namespace, &selector).await? {
        let name = service.metadata.name.clone().unwrap_or_default();
        if !wanted.contains(&name) && ours(&service.metadata) {
            calls.delete(&service, Deletion::SAME).await?;
        }
    }
    for slice in calls.list::<EndpointSlice>(&cluster.namespace, &selector).await? {
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(names::labels::SLICE_SERVICE));
        let managed = labels.and_then(|labels| labels.get(names::labels::SLICE_MANAGED_BY));
        let written_by_us = managed.is_some_and(|by| by == api::MANAGED_BY);
        if written_by_us && service.is_some_and(|name| !wanted.contains(name)) && ours(&slice.metadata) {
            calls.delete(&slice, Deletion::SAME).await?;
        }
    }
    Ok(())
}

async fn make_record(calls: &Calls, cluster: &ValidatedCluster) -> Result<bool, ApplyError> {
    let store = RecordStore::new(calls.clone(), &cluster.namespace, names::lease(&cluster.name));
    let labels = names::labels::of_cluster(&cluster.name);
    match store.create_uninitialised(&cluster.uid, labels, None).await {
        Ok(Created::Made(_)) => Ok(true),
        Ok(Created::Existed(RecordRead::Known(snapshot)))
            if snapshot.record().cluster_uid == cluster.identity =>
        {
            Ok(false)
        }
        Ok(Created::Existed(_)) => Err(ApplyError::RecordAppeared),
        Err(source) => Err(ApplyError::Record { source }),
    }
}

/// A claim's request grows in place where its class allows it; the API server's refusal is told.
async fn grow(
    calls: &Calls,
    cluster: &ValidatedCluster,
    claim: &PersistentVolumeClaim,
) -> Result<(), CallError> {
    let size: Quantity = cluster.spec.storage.size.to_quantity();
    let patch = serde_json::json!({
        "metadata": {"uid": claim.metadata.uid},
        "spec": {"resources": {"requests": {"storage": size}}},
    });
    let api = kube::Api::<PersistentVolumeClaim>::namespaced(calls.client().clone(), &cluster.namespace);
    let params = PatchParams {
        field_manager: Some(FieldManager::OPERATOR.as_str().to_owned()),
        ..PatchParams::default()
    };
    let name = claim.metadata.name.clone().unwrap_or_default();
    bounded("grow claim", calls.bound(), api.patch(&name, &params, &Patch::Merge(&patch))).await.map(drop)
}
