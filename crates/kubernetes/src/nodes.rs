//! Where members live: nodes, and volumes that cannot leave theirs (K14).
//!
//! Both are cluster-wide kinds that a namespaced operator may not read. What may not be read is unknown, and unknown is
//! never "gone": only the API server's own 404 says that.

use k8s_openapi::{
    Metadata,
    api::core::v1::{Node, PersistentVolume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Resource, api::ListParams};
use serde::de::DeserializeOwned;

use crate::call::Calls;

/// The taint by which people, or a cloud's controller, say that a node is shut down and its pods have ended.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeSeen {
    /// It is there.
    There(NodeFacts),
    /// There is no such Node object.
    Gone,
    /// It could not be read, or may not be.
    Unknown,
}

/// The facts of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its zone.
    pub zone: Option<String>,
    /// It carries [`OUT_OF_SERVICE`].
    pub out_of_service: bool,
    /// Memory for pods, as a quantity.
    pub allocatable_memory: Option<String>,
}

impl NodeFacts {
    /// Reads a node.
    pub fn of(node: &Node) -> Self {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        Self {
            zone: node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE)).cloned(),
            out_of_service: taints.into_iter().flatten().any(|taint| taint.key == OUT_OF_SERVICE),
            allocatable_memory: allocatable.and_then(|all| all.get("memory")).map(|memory| memory.0.clone()),
        }
    }
}

/// The one host that a volume can be used on, when it cannot leave it.
pub fn pinned_to(volume: &PersistentVolume) -> Option<String> {
    let terms = &volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?.node_selector_terms;
    // Terms are alternatives: one that names no host leaves a way out.
    let mut hosts = terms.iter().map(|term| {
        let of_host =
            term.match_expressions.iter().flatten().find(|one| one.key == HOST && one.operator == "In")?;
        match of_host.values.as_deref() {
            Some([host]) => Some(host.clone()),
            _ => None,
        }
    });
    let first = hosts.next()??;
    hosts.all(|host| host.as_ref() == Some(&first)).then_some(first)
}

impl Calls {
    /// Reads a node.
    pub async fn node(&self, name: &str) -> NodeSeen {
        match self.get_cluster_wide::<Node>("get node", name).await {
            Some(Some(node)) => NodeSeen::There(NodeFacts::of(&node)),
            Some(None) => NodeSeen::Gone,
            None => NodeSeen::Unknown,
        }
    }

    /// Reads the node that a volume's host label means: the label is the kubelet's word for its host and need not be the
    /// Node's name. Gone only when no node carries the label and the API server knows none of that name either.
    pub async fn node_of_host(&self, host: &str) -> NodeSeen {
        let params = ListParams {
            label_selector: Some(format!("{HOST}={host}")),
            limit: Some(2),
            ..ListParams::default()
        };
        let api = Api::<Node>::all(self.client().clone());
        match self.run("list nodes", api.list(&params)).await.map(|list| list.items) {
            Ok(nodes) => match nodes.as_slice() {
                [node] => NodeSeen::There(NodeFacts::of(node)),
                [] if self.node(host).await == NodeSeen::Gone => NodeSeen::Gone,
                _ => NodeSeen::Unknown,
            },
            Err(error) => {
                tracing::debug!(host, error = error.told(), "node not known");
                NodeSeen::Unknown
            }
        }
    }

    /// The one host of a volume; `None` when it can be used elsewhere or is not known.
    pub async fn host_of_volume(&self, name: &str) -> Option<String> {
        self.get_cluster_wide::<PersistentVolume>("get volume", name)
            .await
            .flatten()
            .as_ref()
            .and_then(pinned_to)
    }

    /// `None` when nothing is known.
    async fn get_cluster_wide<K>(&self, call: &'static str, name: &str) -> Option<Option<K>>
    where
        K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
            + Metadata<Ty = ObjectMeta>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api = Api::<K>::all(self.client().clone());
        match self.run(call, api.get_opt(name)).await {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::debug!(call, name, error = error.told(), "not known");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NodeSeen, pinned_to};
    use crate::{
        Calls,
        mock::{Answer, api_server},
    };
    use k8s_openapi::api::core::v1::PersistentVolume;
    use serde_json::{Value, json};
    use std::time::Duration;

    async fn seen(answer: Answer) -> NodeSeen {
        let (client, _) = api_server(move |_| answer.clone());
        Calls::new(client, Duration::from_millis(50)).node("n").await
    }

    #[tokio::test(start_paused = true)]
    async fn k14_only_a_404_says_gone() {
        assert_eq!(seen(Answer::status(404, "NotFound")).await, NodeSeen::Gone);
        for code in [401, 403, 429, 500, 503] {
            assert_eq!(seen(Answer::status(code, "X")).await, NodeSeen::Unknown, "{code}");
        }
        assert_eq!(seen(Answer::Silence).await, NodeSeen::Unknown);
        let node = json!({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]},
            "status": {"allocatable": {"memory": "4Gi"}}});
        let NodeSeen::There(facts) = seen(Answer::Json(200, node)).await else { panic!() };
        assert!(facts.out_of_service && facts.zone.as_deref() == Some("a"));
    }

    /// What is seen of the host `h` when the list, and then the read by name, are answered so.
    async fn host_seen(list: Answer, by_name: Answer) -> NodeSeen {
        let (client, log) =
            api_server(
                move |asked| {
                    if asked.path == "/api/v1/nodes" { list.clone() } else { by_name.clone() }
                },
            );
        let seen = Calls::new(client, Duration::from_millis(50)).node_of_host("h").await;
        let asked = log.lock().unwrap()[0].clone();
        assert!(asked.query.contains("kubernetes.io%2Fhostname%3Dh"), "{}", asked.query);
        seen
    }

    fn nodes(names: &[&str]) -> Answer {
        let items: Vec<Value> = names
            .iter()
            .map(|name| json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": "h"}}}))
            .collect();
        Answer::Json(200, json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }

    #[tokio::test(start_paused = true)]
    async fn k14_a_host_is_found_by_its_label_not_by_the_nodes_name() {
        let missing = || Answer::status(404, "NotFound");
        let there = NodeSeen::There(super::NodeFacts::default());
        assert_eq!(host_seen(nodes(&["ip-10-0-0-7.internal"]), missing()).await, there);
        assert_eq!(host_seen(nodes(&["a", "b"]), missing()).await, NodeSeen::Unknown, "whose is it");
        assert_eq!(host_seen(nodes(&[]), missing()).await, NodeSeen::Gone);
        let other = Answer::Json(200, json!({"metadata": {"name": "h"}}));
        assert_eq!(
            host_seen(nodes(&[]), other).await,
            NodeSeen::Unknown,
            "a node of that name lost its label"
        );
        assert_eq!(host_seen(nodes(&[]), Answer::status(403, "X")).await, NodeSeen::Unknown);
        for refused in [Answer::status(403, "X"), Answer::status(503, "X"), Answer::Silence] {
            assert_eq!(host_seen(refused, missing()).await, NodeSeen::Unknown);
        }
    }

    fn volume(terms: &Value) -> PersistentVolume {
        serde_json::from_value(
            json!({"metadata": {"name": "v"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}}),
        )
        .unwrap()
    }

    #[test]
    fn k14_only_a_volume_that_cannot_leave_its_host_is_pinned() {
        let host = |values: Value| json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": values}]});
        let zone = json!({"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]});
        assert_eq!(pinned_to(&volume(&json!([host(json!(["n1"]))]))).as_deref(), Some("n1"));
        assert_eq!(pinned_to(&volume(&json!([host(json!(["n1", "n2"]))]))), None);
        assert_eq!(pinned_to(&volume(&json!([host(json!(["n1"])), zone]))), None);
        assert_eq!(pinned_to(&volume(&json!([zone]))), None);
        assert_eq!(pinned_to(&PersistentVolume::default()), None);
    }
}
