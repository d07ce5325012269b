//! The first process of a node: makes the node's own file systems, starts containerd, kube-proxy and the
//! kubelet, starts each again when it ends, and buries every orphan.
//!
//! It never ends by itself; the node dies by its death.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::WaitOptions;

use super::cgroup;
use super::layout::{Layout, Node, VOLUMES_IN_NODE, host_cgroup};

const SOCKET: &str = "/run/containerd/containerd.sock";
/// How long containerd may take to listen, including the clean-up after a power cut.
const LISTENING: Duration = Duration::from_secs(60);
/// A program that ends is started again after this.
const PACE: Duration = Duration::from_secs(1);

/// Runs the node; returns only with an error.
pub(crate) fn run(
    layout: &Layout,
    node: Node,
    kube: &Path,
    containerd: &Path,
) -> Result<std::convert::Infallible> {
    ensure!(std::process::id() == 1, "only the first process of a node boots it");
    // By its own number: the tree that is mounted here is not divided by PID namespaces for writers.
    cgroup::join(&host_cgroup(), 0)?;
    file_systems(layout, node)?;
    rustix::system::sethostname(node.name().as_bytes()).context("naming the node")?;

    let home = layout.node(node);
    let name = node.name();
    let kubeconfig = layout.inner_kubeconfig(&name);
    let component = |program: &Path, arguments: &[String], log: &str| Component {
        program: program.to_owned(),
        arguments: arguments.to_vec(),
        log: layout.log(&format!("{log}-{name}")),
        path: format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", containerd.display()),
    };
    let components = [
        component(
            &containerd.join("containerd"),
            &["--config".into(), home.join("containerd.toml").to_string_lossy().into_owned()],
            "containerd",
        ),
        component(
            kube,
            &["kube-proxy".into(), format!("--config={}", home.join("proxy.json").display())],
            "kube-proxy",
        ),
        component(
            kube,
            &[
                "kubelet".into(),
                format!("--config={}", home.join("kubelet.json").display()),
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--hostname-override={name}"),
                format!("--node-ip={}", node.address()),
                format!(
                    "--node-labels=topology.kubernetes.io/zone={},topology.kubernetes.io/region=rig",
                    node.zone()
                ),
            ],
            "kubelet",
        ),
    ];
    let mut running = BTreeMap::new();
    for (index, component) in components.iter().enumerate() {
        running.insert(component.start()?, index);
        if index == 0 {
            listening()?;
        }
    }
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) => {
                if let Some(component) = running
                    .remove(&pid.as_raw_nonzero().get())
                    .and_then(|index| Some((index, components.get(index)?)))
                {
                    thread::sleep(PACE);
                    running.insert(component.1.start()?, component.0);
                }
            }
            Ok(None) | Err(_) => thread::sleep(PACE),
        }
    }
}

struct Component {
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    path: String,
}

impl Component {
    /// Starts the program and returns its number.
    fn start(&self) -> Result<i32> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("opening {}", self.log.display()))?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", "/root")
            .stdin(Stdio::null())
            .stderr(log.try_clone().context("copying a descriptor")?)
            .stdout(log)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        i32::try_from(child.id()).context("a process number out of range")
    }
}

fn listening() -> Result<()> {
    let started = Instant::now();
    while UnixStream::connect(SOCKET).is_err() {
        ensure!(started.elapsed() < LISTENING, "containerd does not listen");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Gives the node its own /run, /var/log and /var/lib/kubelet. Everything it keeps lies in its home.
fn file_systems(layout: &Layout, node: Node) -> Result<()> {
    let home = layout.node(node);
    let all = MountPropagationFlags::REC;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | all)
        .context("leaving the machine's mounts")?;
    for (directory, mode) in [("/run", "mode=0755"), ("/var/log", "mode=0755")] {
        let options = std::ffi::CString::new(mode).context("mount options")?;
        rustix::mount::mount("tmpfs", directory, "tmpfs", MountFlags::empty(), Some(options.as_c_str()))
            .with_context(|| format!("mounting {directory}"))?;
    }
    for (kept, seen) in [
        ("kubelet", "/var/lib/kubelet"),
        ("volumes", VOLUMES_IN_NODE),
        ("log/pods", "/var/log/pods"),
        ("log/containers", "/var/log/containers"),
    ] {
        fs::create_dir_all(seen).with_context(|| format!("creating {seen}"))?;
        rustix::mount::mount_bind(home.join(kept), seen).with_context(|| format!("mounting {seen}"))?;
    }
    for directory in ["/run/containerd", "/run/netns", "/run/lock"] {
        fs::create_dir_all(directory).with_context(|| format!("creating {directory}"))?;
    }
    // What the kubelet mounts must be seen by containers, and nothing outside the node sees any of it.
    rustix::mount::mount_change("/", MountPropagationFlags::SHARED | all).context("sharing the node's mounts")
}
