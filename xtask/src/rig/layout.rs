//! Every name, path and address of the rig, in one place.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::golang::Programs;

/// Address of the API server on that bridge.
pub(crate) const CONTROL_ADDRESS: &str = "10.201.0.1";
/// Address of CoreDNS on that bridge.
pub(crate) const DNS_ADDRESS: &str = "10.201.0.2";
/// Addresses of Services.
pub(crate) const SERVICE_RANGE: &str = "10.203.0.0/16";
/// Address of the Service `kubernetes`.
pub(crate) const FIRST_SERVICE_ADDRESS: &str = "10.203.0.1";
/// Address of the Service `kube-dns`.
pub(crate) const DNS_SERVICE_ADDRESS: &str = "10.203.0.10";
/// Addresses of all pods.
pub(crate) const POD_RANGE: &str = "10.202.0.0/16";
/// Port of the API server.
pub(crate) const API_PORT: u16 = 6443;
/// Port of the relay on 127.0.0.1, unless somebody else has it.
pub(crate) const RELAY_PORT: u16 = 16443;
/// Where a node sees its volumes; inside the node's own /run.
pub(crate) const VOLUMES_IN_NODE: &str = "/run/volumes";
/// The most nodes that the address plan and this machine bear.
pub(crate) const MOST_NODES: u8 = 20;

/// The rig that is meant when no other is named.
pub(crate) const USUAL: &str = "rig";
/// The rig of the layer of tests that needs no node.
pub(crate) const CONTROLLER: &str = "controller";

/// What the control groups of every rig begin with.
pub(crate) const EVERY_RIG: &str = "matriarch-";

/// Which rig this is: `$MATRIARCH_RIG`, or [`USUAL`]. Rigs of different names do not see each other.
pub(crate) fn instance() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| named(std::env::var("MATRIARCH_RIG").ok().as_deref()).unwrap_or_default())
}

/// Refuses a name that cannot be a rig's: taking it for another one's would break that one.
pub(crate) fn check_instance() -> Result<()> {
    named(std::env::var("MATRIARCH_RIG").ok().as_deref()).map(drop)
}

fn named(wanted: Option<&str>) -> Result<String> {
    let name = wanted.filter(|name| !name.is_empty()).unwrap_or(USUAL);
    // Without a separator, no name is the beginning of another one's names.
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    ensure!(plain && name.len() <= 12, "MATRIARCH_RIG is at most 12 small letters and digits, not {name:?}");
    Ok(name.to_owned())
}

/// What all network namespaces of the rig begin with.
pub(crate) fn netns_prefix() -> String {
    format!("{}-", instance())
}

/// Network namespace of the control plane; it holds the bridge that joins the nodes.
pub(crate) fn control_netns() -> String {
    format!("{}-ctl", instance())
}

/// What all control groups of the rig begin with.
pub(crate) fn cgroup_prefix() -> String {
    format!("{EVERY_RIG}{}-", instance())
}

/// Control group of everything that is not a pod.
pub(crate) fn host_cgroup() -> String {
    cgroup_prefix() + "host"
}

/// A node by its number, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node(pub(crate) u8);

impl Node {
    /// Name of the Node object, and its host name.
    pub(crate) fn name(self) -> String {
        format!("node{}", self.0)
    }
    /// Its network namespace.
    pub(crate) fn netns(self) -> String {
        format!("{}-n{}", instance(), self.0)
    }
    /// The end of its cable that is plugged into the bridge.
    pub(crate) fn cable(self) -> String {
        format!("v{}a", self.0)
    }
    /// Its address on the bridge.
    pub(crate) fn address(self) -> String {
        format!("10.201.0.{}", 10 + u16::from(self.0))
    }
    /// The addresses of its pods.
    pub(crate) fn pod_range(self) -> String {
        format!("10.202.{}.0/24", self.0)
    }
    /// The control group that holds its pods.
    pub(crate) fn cgroup(self) -> String {
        cgroup_prefix() + &self.name()
    }
    /// Its zone, one per node.
    pub(crate) fn zone(self) -> String {
        format!("zone{}", self.0)
    }
}

impl std::str::FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("node").unwrap_or(text).parse() {
            Ok(number) if (1..=MOST_NODES).contains(&number) => Ok(Self(number)),
            _ => Err(format!("a node is a number from 1 or a name like node1, not {text}")),
        }
    }
}

/// What `up` was asked for and how far it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// How many nodes there are.
    pub(crate) nodes: u8,
    /// Version of Kubernetes, without a leading v.
    pub(crate) kubernetes: String,
    /// Whether etcd waits for the disk.
    pub(crate) fsync: bool,
    /// Port of the relay on 127.0.0.1.
    pub(crate) relay_port: u16,
    /// The programs it was started with; a newer recipe does not change a running rig.
    pub(crate) programs: Programs,
    /// containerd's files with all base images in them, from which nodes are born.
    pub(crate) images: PathBuf,
    /// Set when the first start has come to its end; a rig without it is a ruin.
    pub(crate) complete: bool,
}

impl Record {
    /// All nodes in order.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        (1..=self.nodes).map(Node)
    }
}

/// The paths of the rig.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    cache: Cache,
}

impl Layout {
    /// The rig below this cache.
    pub(crate) fn new(cache: Cache) -> Self {
        Self { cache }
    }
    /// The cache it lives in.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }
    /// Everything of this rig.
    pub(crate) fn home(&self) -> PathBuf {
        self.cache.path(instance())
    }
    /// Everything that `down` removes.
    pub(crate) fn state(&self) -> PathBuf {
        self.home().join("state")
    }
    /// A path below [`Self::state`].
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.state().join(relative)
    }
    /// The files of one node, kept over its death.
    pub(crate) fn node(&self, node: Node) -> PathBuf {
        self.path(&node.name())
    }
    /// The log of one program.
    pub(crate) fn log(&self, component: &str) -> PathBuf {
        self.path(&format!("log/{component}.log"))
    }
    /// A certificate, key or kubeconfig.
    pub(crate) fn pki(&self, file: &str) -> PathBuf {
        self.path(&format!("pki/{file}"))
    }
    /// Kubeconfig for use from the ordinary network through the relay. Its path never changes.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.home().join("kubeconfig")
    }
    /// Kubeconfig of one identity for use inside the rig's networks.
    pub(crate) fn inner_kubeconfig(&self, identity: &str) -> PathBuf {
        self.pki(&format!("{identity}.kubeconfig"))
    }
    /// Held by whoever starts or ends the rig.
    pub(crate) fn lock(&self) -> PathBuf {
        self.home().join("lock")
    }

    /// What the rig was started as, if it was.
    pub(crate) fn record(&self) -> Result<Option<Record>> {
        let path = self.path("rig.json");
        match fs::read(&path) {
            // A record that cannot be read is as good as none: the rig is then a ruin.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// The record of a rig that must be there.
    pub(crate) fn running(&self) -> Result<Record> {
        self.record()?
            .filter(|record| record.complete)
            .context("the rig is not up: start it with `cargo xtask rig up`")
    }

    /// Writes the record.
    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        write(self.path("rig.json"), serde_json::to_vec_pretty(record).context("writing the rig's record")?)
    }
}

/// Writes a file, together with the directories above it, whole or not at all.
pub(crate) fn write(path: impl Into<PathBuf>, contents: impl AsRef<[u8]>) -> Result<()> {
    let path = path.into();
    let partial = path.with_extension("partial");
    let outcome = (|| {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&partial, contents)?;
        fs::rename(&partial, &path)
    })();
    outcome.with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_is_never_taken_for_another() {
        assert_eq!(named(None).unwrap(), USUAL);
        assert_eq!(named(Some("")).unwrap(), USUAL);
        assert_eq!(named(Some(CONTROLLER)).unwrap(), CONTROLLER);
        assert!(named(Some("my-rig")).is_err());
        assert!(named(Some("averylongname")).is_err());
    }

    #[test]
    fn nodes_are_named_by_number_or_name() {
        assert_eq!("2".parse(), Ok(Node(2)));
        assert_eq!("node3".parse(), Ok(Node(3)));
        assert!("0".parse::<Node>().is_err());
        assert!("two".parse::<Node>().is_err());
    }
}
