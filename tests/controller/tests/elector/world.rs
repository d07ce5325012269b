//! The API server, a namespace of the test's own in it, and who may do what there.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Client, Config, ResourceExt as _};
use kubernetes::client::for_calls;
use kubernetes::leader_election::ELECTION_ANNOTATION;
use kubernetes::{Calls, Object};
use serde_json::{Value, json};

/// The variable that names the API server.
const KUBECONFIG: &str = "MATRIARCH_CONTROLLER_KUBECONFIG";
/// Bound of one call of a test.
const CALL: Duration = Duration::from_secs(20);
/// Bound of every wait: generous, it only catches a hang.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// One test's view of the API server.
pub(crate) struct World {
    pub(crate) calls: Calls,
    pub(crate) namespace: String,
    directory: tempfile::TempDir,
}

/// The administrator's kubeconfig.
fn administrators() -> Value {
    let path = std::env::var_os(KUBECONFIG).map(PathBuf::from);
    let path = path.unwrap_or_else(|| {
        panic!("{KUBECONFIG} names no API server; these tests are run by `cargo xtask test controller`")
    });
    serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

impl World {
    /// A new namespace whose name begins with `name`.
    pub(crate) async fn new(name: &str) -> Self {
        let kubeconfig: Kubeconfig = serde_json::from_value(administrators()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(for_calls(config, CALL)).unwrap();
        let namespace = json!({"metadata": {"generateName": format!("{name}-")}});
        let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(client.clone());
        let made = namespaces
            .create(&PostParams::default(), &serde_json::from_value(namespace).unwrap())
            .await
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        Self { calls: Calls::new(client, CALL), namespace: made.name_any(), directory }
    }

    /// A directory that is gone with the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A kubeconfig of the administrator for this namespace.
    pub(crate) fn administrator(&self) -> PathBuf {
        self.kubeconfig("administrator", None)
    }

    /// A kubeconfig for this namespace, of the administrator or with these credentials.
    pub(crate) fn kubeconfig(&self, name: &str, user: Option<Value>) -> PathBuf {
        let mut kubeconfig = administrators();
        kubeconfig["contexts"][0]["context"]["namespace"] = self.namespace.as_str().into();
        if let Some(user) = user {
            kubeconfig["users"][0]["user"] = user;
        }
        let path = self.path(name);
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        path
    }

    /// Objects of one kind in the namespace.
    pub(crate) fn api<K: Object>(&self) -> Api<K> {
        Api::namespaced(self.calls.client().clone(), &self.namespace)
    }

    /// Makes an object as it is, with every field known to the server.
    pub(crate) async fn apply(&self, object: &Value) -> Value {
        self.apply_as(object, false).await
    }

    /// Only asks whether the server would.
    pub(crate) async fn would_apply(&self, object: &Value) -> Value {
        self.apply_as(object, true).await
    }

    async fn apply_as(&self, object: &Value, dry: bool) -> Value {
        let (group, version) = object["apiVersion"].as_str().unwrap().rsplit_once('/').unwrap_or(("", "v1"));
        let kind = object["kind"].as_str().unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.calls.client().clone(), &self.namespace, &resource);
        let mut params = PatchParams::apply("tests").validation_strict();
        params.dry_run = dry;
        let name = object["metadata"]["name"].as_str().unwrap();
        let applied = api.patch(name, &params, &Patch::Apply(object)).await.unwrap();
        serde_json::to_value(applied).unwrap()
    }

    /// Makes a Lease that is free, as its last holder leaves it.
    pub(crate) async fn free_lease(&self, name: &str) {
        let state = json!({"epoch": 1, "renewal": 1, "renewTime": 0}).to_string();
        self.apply(&json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "annotations": {ELECTION_ANNOTATION: state}}, "spec": {}}))
            .await;
    }

    /// Who holds a Lease: an identity.
    pub(crate) async fn holder(&self, name: &str) -> Option<String> {
        self.api::<Lease>().get_opt(name).await.unwrap()?.spec?.holder_identity
    }

    /// Deletes an object.
    pub(crate) async fn delete<K: Object>(&self, name: &str) {
        self.api::<K>().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Makes a service account and lets it do this with that.
    pub(crate) async fn account(&self, name: &str, rules: &Value) {
        self.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})).await;
        self.allow(name, rules).await;
    }

    /// Lets a service account do this from now on.
    pub(crate) async fn allow(&self, account: &str, rules: &Value) {
        const GROUP: &str = "rbac.authorization.k8s.io";
        let version = format!("{GROUP}/v1");
        self.apply(
            &json!({"apiVersion": version, "kind": "Role", "metadata": {"name": account}, "rules": rules}),
        )
        .await;
        self.apply(&json!({"apiVersion": version, "kind": "RoleBinding", "metadata": {"name": account},
            "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": account},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": self.namespace}]}))
            .await;
    }

    /// A token of a service account, of no use once `bound`, an object, is gone.
    pub(crate) async fn token(&self, account: &str, bound: Option<&Value>) -> String {
        let mut spec = json!({"expirationSeconds": 3600});
        if let Some(bound) = bound {
            spec["boundObjectRef"] = json!({"apiVersion": bound["apiVersion"], "kind": bound["kind"],
                "name": bound["metadata"]["name"], "uid": bound["metadata"]["uid"]});
        }
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", self.namespace);
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let request = http::Request::post(path).header("content-type", "application/json");
        let request = request.body(body.to_string().into_bytes()).unwrap();
        let answer: Value = self.calls.client().request(request).await.unwrap();
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    /// A kubeconfig with a token of a service account.
    pub(crate) async fn kubeconfig_of(&self, account: &str) -> PathBuf {
        let token = self.token(account, None).await;
        self.kubeconfig(account, Some(json!({"token": token})))
    }
}

/// Looks until `look` says `Ok`; its last `Err` is what was seen instead.
pub(crate) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(seen) => assert!(started.elapsed() < LONG, "{what}: {seen}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
