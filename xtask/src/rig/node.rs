//! One node: its files, its birth, its death, its cable.
//!
//! A node is a set of namespaces whose first process is this program (see [`super::boot`]). Killing that
//! process is a power cut: the kernel ends everything inside at once. Its files stay, so that it can be started
//! again and find its volumes.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use super::layout::{DNS_SERVICE_ADDRESS, Layout, Node, POD_RANGE, Record, write};
use super::process::{Identity, Service, recorded};
use super::{cgroup, net};
use crate::command;
use crate::golang::Programs;
use crate::images::template;

/// How long the last process of a killed node may take to be gone.
const DEATH: Duration = Duration::from_secs(20);

/// Starts a node unless it runs.
pub(crate) fn start(layout: &Layout, record: &Record, node: Node) -> Result<()> {
    let programs = &record.programs;
    if running(layout, node) {
        return Ok(());
    }
    // Whatever is left of its last life is gone after a boot: routes, rules, connections.
    net::delete_node(node)?;
    net::create_node(node, record)?;
    if layout.node(node).join("cut").exists() {
        net::plug(node, false)?;
    }
    cgroup::create(&node.cgroup())?;
    files(layout, programs, record, node)?;
    template::copy(&record.images, &layout.node(node).join("containerd"))
        .with_context(|| format!("giving {} its images", node.name()))?;
    let own = std::env::current_exe().context("finding this program")?;
    let mut command: Vec<String> = [
        "unshare",
        "--mount",
        "--uts",
        "--ipc",
        "--pid",
        "--fork",
        "--kill-child=SIGKILL",
        "--mount-proc",
        "--",
    ]
    .map(str::to_owned)
    .to_vec();
    command.push(own.to_string_lossy().into_owned());
    command.extend(["rig", "boot", &node.0.to_string(), "--kube"].map(str::to_owned));
    command.push(programs.kube.to_string_lossy().into_owned());
    command.push("--containerd".to_owned());
    command.push(programs.containerd.to_string_lossy().into_owned());
    Service { name: &node.name(), netns: Some(&node.netns()), command }.ensure(layout).map(drop)
}

/// Whether a node's first process runs.
pub(crate) fn running(layout: &Layout, node: Node) -> bool {
    recorded(layout, &node.name()).is_some_and(Identity::alive)
}

/// A power cut. The cable is pulled first, for a node without power sends no farewell to anybody.
pub(crate) fn kill(layout: &Layout, node: Node) -> Result<()> {
    if net::cabled(node) {
        net::plug(node, false)?;
    }
    cgroup::thaw_all(&node.cgroup());
    if let Some(outer) = recorded(layout, &node.name()) {
        for inner in outer.children() {
            inner.signal(Signal::KILL);
        }
        outer.signal(Signal::KILL);
    }
    let started = Instant::now();
    while running(layout, node) || !cgroup::processes(&node.cgroup()).is_empty() {
        ensure!(started.elapsed() < DEATH, "processes of {} outlive it", node.name());
        thread::sleep(Duration::from_millis(20));
    }
    net::delete_node(node)
}

/// Pulls the cable, or plugs it in.
pub(crate) fn cut(layout: &Layout, node: Node, cut: bool) -> Result<()> {
    let mark = layout.node(node).join("cut");
    if cut {
        write(&mark, "")?;
    } else {
        crate::cache::remove(&mark)?;
    }
    // A dead node has no cable; the mark tells it what to do when it is born again.
    if net::cabled(node) { net::plug(node, !cut) } else { Ok(()) }
}

/// Stops or continues all pods of a node; the kubelet goes on.
pub(crate) fn freeze(node: Node, frozen: bool) -> Result<()> {
    cgroup::freeze(&node.cgroup(), frozen)
}

/// A command that runs inside a node.
pub(crate) fn inside(layout: &Layout, node: Node) -> Result<Command> {
    let outer = recorded(layout, &node.name()).filter(|identity| identity.alive());
    let first = outer.and_then(|outer| outer.children().into_iter().next());
    let first = first.with_context(|| format!("{} does not run", node.name()))?;
    let target = first.pid.to_string();
    Ok(command::command(
        "nsenter",
        ["--target", &target, "--mount", "--net", "--pid", "--uts", "--ipc", "--wd=/", "--"],
    ))
}

fn files(layout: &Layout, programs: &Programs, record: &Record, node: Node) -> Result<()> {
    let home = layout.node(node);
    for directory in ["kubelet", "containerd", "volumes", "log/pods", "log/containers"] {
        let path = home.join(directory);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    }
    write(home.join("cni/10-rig.conflist"), pod_network(node))?;
    write(home.join("containerd.toml"), containerd(&home, programs))?;
    write(home.join("kubelet.json"), kubelet(layout, record, node)?)?;
    write(home.join("proxy.json"), proxy(layout, node))
}

fn pod_network(node: Node) -> String {
    json!({"cniVersion": "0.4.0", "name": "rig", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
         "ipam": {"type": "host-local", "ranges": [[{"subnet": node.pod_range()}]],
                  "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni-ipam"}},
        {"type": "portmap", "capabilities": {"portMappings": true}}]})
    .to_string()
}

fn containerd(home: &Path, programs: &Programs) -> String {
    format!(
        r#"version = 3
root = "{home}/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      runtime_path = "{shims}/containerd-shim-runc-v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = "/usr/sbin/runc"
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{home}/cni"
"#,
        home = home.display(),
        pause = crate::images::PAUSE,
        shims = programs.containerd.display(),
    )
}

fn kubelet(layout: &Layout, record: &Record, node: Node) -> Result<String> {
    // All nodes share the memory of one machine; each offers its share of nine tenths and keeps the rest off.
    let total = rustix::system::sysinfo().totalram as u64;
    let reserved = total - total / 10 * 9 / u64::from(record.nodes);
    ensure!(reserved < total, "this machine is too small");
    Ok(json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", node.cgroup()), "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [], "failSwapOn": false, "failCgroupV1": false, "protectKernelDefaults": false,
        "localStorageCapacityIsolation": false, "oomScoreAdj": 0, "maxPods": 60,
        "systemReserved": {"memory": reserved.to_string()},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [DNS_SERVICE_ADDRESS], "clusterDomain": "cluster.local", "resolvConf": "/dev/null",
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
                           "x509": {"clientCAFile": layout.pki("ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": layout.pki(&format!("{}.crt", node.name())),
        "tlsPrivateKeyFile": layout.pki(&format!("{}.key", node.name())),
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "nodeStatusUpdateFrequency": "5s",
    })
    .to_string())
}

fn proxy(layout: &Layout, node: Node) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables",
        "clusterCIDR": POD_RANGE, "hostnameOverride": node.name(), "oomScoreAdj": 0,
        "clientConnection": {"kubeconfig": layout.inner_kubeconfig("proxy")},
        // A network namespace may not set the limits of the connection table.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
    .to_string()
}
