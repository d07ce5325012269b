//! Reads everything that a decision rests on, fresh, and changes nothing.
//!
//! Slices are read *before* pods: a pod that a slice names existed before the slice was written, so one that is missing
//! from the later list is really gone (K3).

use std::collections::{BTreeMap, BTreeSet};

use api::names::{self, DEFAULT_POOL, labels};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, PodCondition, Secret},
    discovery::v1::EndpointSlice,
};
use kubernetes::{
    CallError, Calls,
    nodes::NodeSeen,
    record::{RecordRead, RecordStore},
    slices::SliceState,
};

use crate::build::certificates::Existing;

/// Everything that is there.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The record.
    pub record: RecordRead,
    /// The StatefulSet of the default pool.
    pub stateful_set: Option<StatefulSet>,
    /// Its pods.
    pub pods: Vec<Pod>,
    /// Claims of the cluster, of former members too.
    pub claims: Vec<PersistentVolumeClaim>,
    /// Authority and certificates.
    pub certificates: Existing,
    /// The superuser's password.
    pub superuser: Option<Secret>,
    /// The application's password.
    pub app: Option<Secret>,
    /// Nodes of the members, by name.
    pub nodes: BTreeMap<String, NodeSeen>,
    /// The one host of a volume that holds a member back, with its node, by the claim's name. A host is a label, not the
    /// name of a node.
    pub hosts: BTreeMap<String, (String, NodeSeen)>,
    /// The operator's memory of templates.
    pub templates: Option<ConfigMap>,
    /// All slices of the cluster that are ours.
    pub slices: Vec<SliceState>,
    /// Their names, in the same order.
    pub slice_names: Vec<String>,
}

impl Observed {
    /// The pod of this name.
    pub fn pod(&self, name: &str) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name))
    }

    /// The slice of this name.
    pub fn slice(&self, name: &str) -> Option<&SliceState> {
        self.slice_names.iter().position(|there| there == name).and_then(|index| self.slices.get(index))
    }
}

/// Reads a cluster's objects. Any failure is the whole's failure: half a picture is no basis for a decision.
pub async fn dereference(calls: &Calls, namespace: &str, cluster: &str) -> Result<Observed, CallError> {
    let of_cluster = format!("{}={cluster}", labels::CLUSTER);
    let slices: Vec<EndpointSlice> = calls.list(namespace, &of_cluster).await?;
    let record = RecordStore::new(calls.clone(), namespace, names::lease(cluster)).read().await;
    let members = labels::pool_selector_text(cluster, DEFAULT_POOL);
    let secret = |name: String| async move { calls.get::<Secret>(namespace, &name).await };
    let stateful_set = names::stateful_set(cluster);
    let templates = names::last_good_template(cluster);
    let (pods, claims, stateful_set, templates) = tokio::try_join!(
        calls.list::<Pod>(namespace, &members),
        calls.list::<PersistentVolumeClaim>(namespace, &of_cluster),
        calls.get::<StatefulSet>(namespace, &stateful_set),
        calls.get::<ConfigMap>(namespace, &templates),
    )?;
    let (authority, server, peer, client, superuser, app) = tokio::try_join!(
        secret(names::ca_secret(cluster)),
        secret(names::server_secret(cluster)),
        secret(names::peer_secret(cluster)),
        secret(names::client_secret(cluster)),
        secret(names::superuser_secret(cluster)),
        secret(names::app_secret(cluster)),
    )?;
    let pods: Vec<Pod> = pods
        .into_iter()
        .filter(|pod| pod.metadata.name.as_deref().is_some_and(|pod| names::ordinal(cluster, pod).is_some()))
        .collect();
    let hosts = hosts(calls, &pods, &claims).await;
    let nodes = nodes(calls, &pods).await;
    Ok(Observed {
        nodes,
        hosts,
        record,
        stateful_set,
        pods,
        claims,
        certificates: Existing { authority, server, peer, client },
        superuser,
        app,
        templates,
        slice_names: slices.iter().map(|slice| slice.metadata.name.clone().unwrap_or_default()).collect(),
        slices: slices.into_iter().map(SliceState::of).collect(),
    })
}

/// Whether the scheduler found no node for a pod.
pub fn is_unscheduled(pod: &Pod) -> bool {
    let assigned = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).is_some();
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let refused = |condition: &PodCondition| condition.type_ == "PodScheduled" && condition.status == "False";
    !assigned && conditions.into_iter().flatten().any(refused)
}

/// Only asked for members that no node takes: at rest it costs no read.
async fn hosts(
    calls: &Calls,
    pods: &[Pod],
    claims: &[PersistentVolumeClaim],
) -> BTreeMap<String, (String, NodeSeen)> {
    let mut hosts = BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_unscheduled(pod)) {
        let wanted = pod.metadata.name.as_deref().map(names::data_claim);
        let claim = claims.iter().find(|claim| claim.metadata.name == wanted);
        let volume = claim.and_then(|claim| claim.spec.as_ref()?.volume_name.as_deref());
        if let (Some(volume), Some(claim)) = (volume, wanted)
            && let Some(host) = calls.host_of_volume(volume).await
        {
            let node = calls.node_of_host(&host).await;
            hosts.insert(claim, (host, node));
        }
    }
    hosts
}

async fn nodes(calls: &Calls, pods: &[Pod]) -> BTreeMap<String, NodeSeen> {
    let of_pods = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone());
    let wanted: BTreeSet<String> = of_pods.collect();
    let mut seen = BTreeMap::new();
    for name in wanted {
        let node = calls.node(&name).await;
        seen.insert(name, node);
    }
    seen
}
