//! What every scenario shares: the API server, the rig's switches, the cluster that the fault scenarios take turns on.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use hyper::http;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde::de::DeserializeOwned;

use crate::cluster::Cluster;
use crate::faults::Outstanding;

/// Bound of any one call; the pod proxy may need to count many rows.
const CALL: Duration = Duration::from_secs(60);
/// Bound of any one command of the rig.
const COMMAND: Duration = Duration::from_secs(180);

/// Everything outside of the tests.
pub(crate) struct World {
    /// The administrator's client.
    pub(crate) client: Client,
    /// The administrator's way to the API server, for clients with other credentials.
    pub(crate) config: Config,
    /// The image of the test client.
    pub(crate) client_image: String,
    /// Root of the tree, with the examples and the charts: where the tests are run.
    pub(crate) tree: PathBuf,
    /// What is broken now and must be mended before the next scenario.
    pub(crate) outstanding: RefCell<Outstanding>,
    /// When something took longer than it should: the members' logs of that time tell why.
    pub(crate) to_explain: RefCell<Vec<Range<Timestamp>>>,
    xtask: Option<PathBuf>,
    shared: RefCell<Option<Rc<Cluster>>>,
    namespaces: RefCell<Vec<String>>,
    serial: Cell<u32>,
    run: String,
}

impl World {
    /// Connects and checks that there is a cluster with the operator's CRD.
    pub(crate) async fn open(kubeconfig: Option<&PathBuf>, client_image: String) -> Result<Self> {
        let file = match kubeconfig {
            Some(file) => file.clone(),
            None => default_kubeconfig()?,
        };
        let kubeconfig = Kubeconfig::read_from(&file).with_context(|| format!("read {}", file.display()))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        config.read_timeout = None;
        config.connect_timeout = Some(Duration::from_secs(3));
        let client = Client::try_from(config.clone())?;
        tokio::time::timeout(CALL, client.apiserver_version())
            .await
            .context("the API server does not answer")?
            .context("ask the API server for its version")?;
        let run = format!("{:04x}", rand::random::<u16>());
        Ok(Self {
            client,
            config,
            client_image,
            tree: std::env::current_dir().context("find the tree")?,
            outstanding: RefCell::default(),
            to_explain: RefCell::default(),
            xtask: std::env::var_os("MATRIARCH_XTASK").map(PathBuf::from),
            shared: RefCell::default(),
            namespaces: RefCell::default(),
            serial: Cell::default(),
            run,
        })
    }

    /// Prints a line below the scenario's name.
    #[expect(clippy::unused_self, reason = "the place where output could be captured")]
    pub(crate) fn say(&self, text: impl Display) {
        println!("      {text}");
    }

    /// A number that no other caller in this run got.
    pub(crate) fn next(&self) -> u32 {
        self.serial.set(self.serial.get() + 1);
        self.serial.get()
    }

    /// Typed access within a namespace.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A GET by path, as text.
    pub(crate) async fn get(&self, path: &str) -> Result<String> {
        let request = http::Request::get(path).body(Vec::new())?;
        tokio::time::timeout(CALL, self.client.request_text(request))
            .await
            .with_context(|| format!("GET {path}: no answer within {CALL:?}"))?
            .with_context(|| format!("GET {path}"))
    }

    /// A GET of a page of a pod, by way of the API server.
    pub(crate) async fn page<T: DeserializeOwned>(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        page: &str,
    ) -> Result<T> {
        let text =
            self.get(&format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{page}")).await?;
        serde_json::from_str(&text).with_context(|| format!("read {page} of {pod}: {text}"))
    }

    /// Runs a command of the rig, such as `["node", "cut", "node1"]`.
    pub(crate) async fn rig(&self, arguments: &[&str]) -> Result<String> {
        self.xtask("rig", arguments).await
    }

    /// Runs the simulator, such as `["--replay", "log.jsonl"]`.
    pub(crate) async fn sim(&self, arguments: &[&str]) -> Result<String> {
        self.xtask("sim", arguments).await
    }

    async fn xtask(&self, task: &str, arguments: &[&str]) -> Result<String> {
        let xtask = self.xtask.as_ref().context("MATRIARCH_XTASK is not set; this scenario needs the rig")?;
        let mut command = tokio::process::Command::new(xtask);
        command.arg(task).args(arguments).kill_on_drop(true);
        let output = tokio::time::timeout(COMMAND, command.output())
            .await
            .with_context(|| format!("{task} {arguments:?}: longer than {COMMAND:?}"))?
            .with_context(|| format!("start {}", xtask.display()))?;
        ensure!(
            output.status.success(),
            "{task} {arguments:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whether faults of nodes and of the API server can be made.
    pub(crate) fn has_rig(&self) -> bool {
        self.xtask.is_some()
    }

    /// Names of the nodes that take pods.
    pub(crate) async fn nodes(&self) -> Result<Vec<String>> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        Ok(nodes.iter().map(ResourceExt::name_any).collect())
    }

    /// A node that is none of these.
    pub(crate) async fn node_besides(&self, avoid: &[&str]) -> Result<String> {
        let nodes = self.nodes().await?;
        match nodes.into_iter().find(|node| !avoid.contains(&node.as_str())) {
            Some(node) => Ok(node),
            None => bail!("no node besides {avoid:?}"),
        }
    }

    /// Makes a namespace in which pods must meet `restricted`.
    pub(crate) async fn namespace(&self, topic: &str) -> Result<String> {
        let name = format!("e2e-{}-{topic}-{}", self.run, self.next());
        let namespace: Namespace = serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
                "matriarch.dev/e2e": self.run,
            }}
        }))?;
        Api::<Namespace>::all(self.client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("create namespace {name}"))?;
        self.namespaces.borrow_mut().push(name.clone());
        Ok(name)
    }

    /// Removes a namespace and all pods in it, quickly; does not wait for the last object.
    pub(crate) async fn remove_namespace(&self, name: &str) -> Result<()> {
        crate::cluster::delete_all(self, name).await?;
        let deleted =
            Api::<Namespace>::all(self.client.clone()).delete(name, &DeleteParams::background()).await;
        match deleted {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error).with_context(|| format!("delete namespace {name}")),
        }
        self.namespaces.borrow_mut().retain(|known| known != name);
        Ok(())
    }

    /// Namespaces that were made and not removed yet.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        self.namespaces.borrow().clone()
    }

    /// The cluster of three members that scenarios without needs of their own share; made when there is none.
    pub(crate) async fn shared(&self) -> Result<Rc<Cluster>> {
        let existing = self.shared.borrow().clone();
        if let Some(cluster) = existing {
            return Ok(cluster);
        }
        let namespace = self.namespace("shared").await?;
        let cluster =
            Rc::new(Cluster::from_example(self, &namespace, "minimal.yaml", &serde_json::json!({})).await?);
        // Known before it is up, so that a failure shows and removes it.
        *self.shared.borrow_mut() = Some(cluster.clone());
        Ok(cluster)
    }

    /// Forgets the shared cluster after a failure: the next scenario gets a new one.
    pub(crate) async fn discard_shared(&self) -> Result<()> {
        let old = self.shared.borrow_mut().take();
        match old {
            Some(cluster) => self.remove_namespace(&cluster.namespace).await,
            None => Ok(()),
        }
    }
}

/// Microseconds since 1970, comparable with the client's log: all nodes of the rig share one clock.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Text in a map, for looks.
pub(crate) fn show<K: Display, V: Display>(map: &BTreeMap<K, V>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

fn default_kubeconfig() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("KUBECONFIG") {
        return Ok(PathBuf::from(file));
    }
    let cache = match std::env::var_os("MATRIARCH_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("neither KUBECONFIG nor HOME is set")?)
            .join(".cache/matriarch"),
    };
    Ok(cache.join("rig/kubeconfig"))
}
