//! The API server, a namespace of the test's own in it, and what tests read and write there.

use std::path::PathBuf;
use std::time::Duration;

use api::{PostgresCluster, PostgresClusterStatus, names};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Client, Config, ResourceExt as _};
use kubernetes::client::{for_calls, for_watches};
use kubernetes::record::{RecordRead, RecordStore};
use kubernetes::{Calls, Object};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::wait;

/// The variable that names the API server.
pub const KUBECONFIG: &str = "MATRIARCH_CONTROLLER_KUBECONFIG";
/// Bound of one call of a test or of an operator under test.
pub const CALL: Duration = Duration::from_secs(10);
/// Whom an operator under test is, with the rights that the chart gives it and no other.
pub const IDENTITY: &str = "system:serviceaccount:matriarch-system:matriarch-operator";

/// One test's view of the API server.
#[derive(Clone)]
pub struct World {
    /// Calls as the administrator.
    pub calls: Calls,
    /// The namespace.
    pub namespace: String,
}

/// How to reach the API server as its administrator.
pub async fn administrator() -> Config {
    let path = std::env::var_os(KUBECONFIG).map(PathBuf::from);
    let path = path.unwrap_or_else(|| {
        panic!("{KUBECONFIG} names no API server; these tests are run by `cargo xtask test controller`")
    });
    let kubeconfig = Kubeconfig::read_from(&path).expect("a kubeconfig");
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a kubeconfig")
}

/// How an operator under test reaches it.
pub async fn operators() -> Config {
    let mut config = administrator().await;
    config.auth_info.impersonate = Some(IDENTITY.to_owned());
    config
}

/// The tree that these tests belong to.
pub fn tree() -> PathBuf {
    // Cargo runs tests in their package's directory.
    PathBuf::from("../..")
}

impl World {
    /// A new namespace whose name begins with `name`.
    pub async fn new(name: &str) -> Self {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let config = administrator().await;
        let client = Client::try_from(for_calls(config, CALL)).expect("a client");
        INSTALLED.get_or_init(|| install(client.clone())).await;
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"generateName": format!("{name}-")}})).unwrap();
        let made = Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        Self { calls: Calls::new(client, CALL), namespace: made.name_any() }
    }

    /// The namespace's UID.
    pub async fn uid(&self) -> String {
        let all = Api::<Namespace>::all(self.calls.client().clone());
        all.get(&self.namespace).await.unwrap().uid().unwrap()
    }

    /// Objects of one kind in the namespace.
    pub fn api<K: Object>(&self) -> Api<K> {
        Api::namespaced(self.calls.client().clone(), &self.namespace)
    }

    /// Objects of one kind, untyped.
    pub fn dynamic(&self, kind: &Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.calls.client().clone(), &self.namespace, &kind.resource())
    }

    /// All objects of one kind, untyped.
    pub async fn all(&self, kind: &Kind) -> Vec<Value> {
        let list = self.dynamic(kind).list(&ListParams::default()).await.unwrap();
        list.items.into_iter().map(|object| serde_json::to_value(object).unwrap()).collect()
    }

    /// One object, untyped.
    pub async fn get(&self, kind: &Kind, name: &str) -> Option<Value> {
        let object = self.dynamic(kind).get_opt(name).await.unwrap();
        object.map(|object| serde_json::to_value(object).unwrap())
    }

    /// Deletes one object.
    pub async fn delete(&self, kind: &Kind, name: &str) {
        self.dynamic(kind).delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// A merge patch.
    pub async fn merge(&self, kind: &Kind, name: &str, patch: &Value) {
        let api = self.dynamic(kind);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Creates a cluster with this spec.
    pub async fn create(&self, name: &str, spec: Value) -> PostgresCluster {
        self.create_as(&json!({"apiVersion": "matriarch.dev/v1alpha1", "kind": "PostgresCluster",
            "metadata": {"name": name}, "spec": spec}))
            .await
    }

    /// Creates a cluster from a manifest.
    pub async fn create_as(&self, manifest: &Value) -> PostgresCluster {
        let cluster: PostgresCluster = serde_json::from_value(manifest.clone()).unwrap();
        self.api().create(&PostParams::default(), &cluster).await.unwrap()
    }

    /// A merge patch on a cluster's spec.
    pub async fn edit(&self, name: &str, spec: Value) -> PostgresCluster {
        let patch = json!({"spec": spec});
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap()
    }

    /// The cluster, which must be there.
    pub async fn cluster(&self, name: &str) -> PostgresCluster {
        self.api().get(name).await.unwrap()
    }

    /// A cluster's status.
    pub async fn status(&self, name: &str) -> PostgresClusterStatus {
        self.cluster(name).await.status.unwrap_or_default()
    }

    /// One condition: status, reason, message.
    pub async fn condition(&self, name: &str, type_: &str) -> (String, String, String) {
        let status = self.status(name).await;
        let found = status.conditions.into_iter().find(|condition| condition.type_ == type_);
        found.map_or_else(<_>::default, |found| (found.status, found.reason, found.message))
    }

    /// Waits until a condition has this status, and its message contains every piece.
    pub async fn told(&self, name: &str, type_: &str, status: &str, pieces: &[&str]) -> String {
        let what = format!("{type_}={status} with {pieces:?}");
        wait::until(&what, || async {
            let (is, reason, message) = self.condition(name, type_).await;
            let fits = is == status && pieces.iter().all(|piece| message.contains(piece) || reason == *piece);
            if fits { Ok(message) } else { Err((is, reason, message)) }
        })
        .await
    }

    /// Waits until the cluster is healthy: ready, with nothing going on and nobody missing, all in
    /// the electorate, in its newest generation.
    pub async fn healthy(&self, name: &str) -> PostgresCluster {
        wait::until("a healthy cluster", || async {
            let cluster = self.cluster(name).await;
            let status = cluster.status.clone().unwrap_or_default();
            let current = status.observed_generation == cluster.metadata.generation;
            let all = status.ready_instances == Some(cluster.spec.instances)
                && status.instances == Some(cluster.spec.instances);
            let followers = status.electorates.last().map(|electorate| electorate.members.len());
            let complete = followers.map(|count| count + 1) == usize::try_from(cluster.spec.instances).ok();
            let well = current && all && complete && status.phase == Some(api::Phase::Healthy);
            if well { Ok(cluster) } else { Err(status) }
        })
        .await
    }

    /// The pods of a cluster, in order.
    pub async fn pods(&self, cluster: &str) -> Vec<Pod> {
        let selector = names::labels::pool_selector_text(cluster, names::DEFAULT_POOL);
        let mut pods = self.calls.list::<Pod>(&self.namespace, &selector).await.unwrap();
        pods.sort_by_key(kube::ResourceExt::name_any);
        pods
    }

    /// The record of a cluster.
    pub async fn record(&self, cluster: &str) -> RecordRead {
        self.records(cluster).read().await
    }

    /// Where the record of a cluster is.
    pub fn records(&self, cluster: &str) -> RecordStore {
        RecordStore::new(self.calls.clone(), &self.namespace, names::lease(cluster))
    }
}

/// A kind of object, for untyped access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `apps`, empty for the first ones.
    pub group: &'static str,
    /// `v1`.
    pub version: &'static str,
    /// `StatefulSet`.
    pub kind: &'static str,
    /// `statefulsets`.
    pub plural: &'static str,
}

impl Kind {
    const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self { group, version, kind, plural }
    }

    fn resource(self) -> ApiResource {
        let gvk = GroupVersionKind::gvk(self.group, self.version, self.kind);
        ApiResource::from_gvk_with_plural(&gvk, self.plural)
    }
}

/// `PostgresCluster`.
pub const CLUSTER: Kind = Kind::new("matriarch.dev", "v1alpha1", "PostgresCluster", "postgresclusters");
/// `ServiceAccount`.
pub const SERVICE_ACCOUNT: Kind = Kind::new("", "v1", "ServiceAccount", "serviceaccounts");
/// `Role`.
pub const ROLE: Kind = Kind::new("rbac.authorization.k8s.io", "v1", "Role", "roles");
/// `RoleBinding`.
pub const ROLE_BINDING: Kind = Kind::new("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings");
/// `Secret`.
pub const SECRET: Kind = Kind::new("", "v1", "Secret", "secrets");
/// `Service`.
pub const SERVICE: Kind = Kind::new("", "v1", "Service", "services");
/// `ConfigMap`.
pub const CONFIG_MAP: Kind = Kind::new("", "v1", "ConfigMap", "configmaps");
/// `Lease`.
pub const LEASE: Kind = Kind::new("coordination.k8s.io", "v1", "Lease", "leases");
/// `EndpointSlice`.
pub const SLICE: Kind = Kind::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
/// `PodDisruptionBudget`.
pub const BUDGET: Kind = Kind::new("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets");
/// `StatefulSet`.
pub const STATEFUL_SET: Kind = Kind::new("apps", "v1", "StatefulSet", "statefulsets");
/// `PersistentVolumeClaim`.
pub const CLAIM: Kind = Kind::new("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims");
/// `Pod`.
pub const POD: Kind = Kind::new("", "v1", "Pod", "pods");

/// Every kind of object that a cluster consists of.
pub const KINDS: [Kind; 13] = [
    CLUSTER,
    SERVICE_ACCOUNT,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    CONFIG_MAP,
    LEASE,
    SLICE,
    BUDGET,
    STATEFUL_SET,
    CLAIM,
    POD,
];

/// Installs the definitions and the rights of the operator as the charts have them, and waits until both are in force.
async fn install(client: Client) {
    let params = PatchParams::apply("tests").force();
    for entry in std::fs::read_dir(tree().join("crds")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let crd: CustomResourceDefinition = serde_yaml::from_str(&text).unwrap();
        let api = Api::<CustomResourceDefinition>::all(client.clone());
        api.patch(&crd.name_any(), &params, &Patch::Apply(&crd)).await.expect("the definition is accepted");
        wait::until("an established definition", || async {
            let there = api.get(&crd.name_any()).await.map_err(|error| error.to_string())?;
            let conditions = there.status.and_then(|status| status.conditions).unwrap_or_default();
            let is = |type_: &str| {
                conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
            };
            if is("Established") { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
    }
    for object in rights() {
        let (group, version) = object["apiVersion"].as_str().unwrap().rsplit_once('/').unwrap_or(("", "v1"));
        let kind = object["kind"].as_str().unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let name = object["metadata"]["name"].as_str().unwrap();
        api.patch(name, &params, &Patch::Apply(&object)).await.unwrap();
    }
    let operator = Client::try_from(for_watches(operators().await)).expect("a client");
    let clusters = Api::<PostgresCluster>::all(operator);
    wait::until("the operator's rights", || async {
        clusters.list(&ListParams::default()).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

/// The cluster-wide rights of the operator, as Helm renders them from the chart.
fn rights() -> Vec<Value> {
    let helm = std::env::var_os("MATRIARCH_HELM").unwrap_or_else(|| "helm".into());
    let rendered = std::process::Command::new(helm)
        .args(["template", "matriarch-operator", "--namespace", "matriarch-system"])
        .arg(tree().join("charts/matriarch-operator"))
        .output()
        .expect("helm runs");
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let text = String::from_utf8(rendered.stdout).unwrap();
    let documents = text.split("\n---").filter_map(|document| serde_yaml::from_str::<Value>(document).ok());
    let rights: Vec<Value> = documents
        .filter(|object| matches!(object["kind"].as_str(), Some("ClusterRole" | "ClusterRoleBinding")))
        .collect();
    assert!(rights.len() >= 2, "the chart gives the operator rights");
    rights
}
