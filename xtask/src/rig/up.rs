//! Starts the rig, or repairs one of which something has died. Doing it again changes nothing.
//!
//! A first start that fails shows the end of the log of what failed and takes everything down again; a repair that fails
//! leaves what runs. No test breaks a component on purpose; every run of the end-to-end tests starts one that works.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;

use super::layout::{Layout, MOST_NODES, Node, Record, host_cgroup};
use super::{cgroup, control, down, net, node, pki, process, relay, status};
use crate::command;
use crate::golang::{KUBERNETES, Programs};
use crate::{images, packages};

/// How long nodes may take from their start to `Ready`.
const READY: Duration = Duration::from_secs(120);

/// What to start.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Wanted {
    /// How many nodes; 3, or as many as there are. With 0 there is a control plane and nothing that runs a pod.
    #[arg(long)]
    nodes: Option<u8>,
    /// Version of Kubernetes; the pinned one, or the running one.
    #[arg(long)]
    kubernetes: Option<String>,
    /// Let etcd wait for the disk, as benchmarks of failover want it.
    #[arg(long)]
    fsync: bool,
}

/// Starts the rig.
pub(crate) fn run(layout: &Layout, wanted: &Wanted) -> Result<()> {
    let started = Instant::now();
    let _lock = down::lock(layout)?;
    let existing = match layout.record()? {
        Some(record) if record.complete => Some(record),
        _ => None,
    };
    if let Some(record) = &existing {
        same(record, wanted)?;
    }
    let record = if let Some(record) = existing {
        if status::healthy(layout, &record) {
            status::introduce(layout, &record);
            return Ok(());
        }
        eprintln!("… something of the rig has ended; starting it again");
        record
    } else {
        // Whatever an interrupted start or a crash has left.
        down::clear(layout)?;
        prepare(layout, wanted)?
    };
    let first = !record.complete;
    if let Err(error) = ensure_all(layout, &record) {
        if !first {
            return Err(error.context("the rig could not be repaired; `cargo xtask rig down` removes it"));
        }
        return Err(match down::clear(layout) {
            Ok(()) => error.context("the rig did not start; nothing of it is left running"),
            Err(left) => {
                error.context(format!("the rig did not start, and not all of it could be removed: {left:#}"))
            }
        });
    }
    layout.write_record(&Record { complete: true, ..record.clone() })?;
    eprintln!("✓ {} nodes are ready ({:.1} s)", record.nodes, started.elapsed().as_secs_f64());
    status::introduce(layout, &record);
    Ok(())
}

/// Makes what is missing of programs and images before anything is started.
fn prepare(layout: &Layout, wanted: &Wanted) -> Result<Record> {
    let nodes = wanted.nodes.unwrap_or(3);
    ensure!(nodes <= MOST_NODES, "at most {MOST_NODES} nodes, not {nodes}");
    let kubernetes = wanted.kubernetes.clone().unwrap_or_else(|| KUBERNETES.to_owned());
    packages::ensure_installed()?;
    let programs = Programs::ensure(layout.cache(), &kubernetes)?;
    let images = if nodes == 0 {
        PathBuf::new()
    } else {
        let archives = images::base(layout.cache())?;
        images::template::ensure(layout.cache(), &programs, &archives)?
    };
    let relay_port = relay::choose_port()?;
    Ok(Record { nodes, kubernetes, fsync: wanted.fsync, relay_port, programs, images, complete: false })
}

fn same(record: &Record, wanted: &Wanted) -> Result<()> {
    let nodes = wanted.nodes.is_none_or(|nodes| nodes == record.nodes);
    let version = wanted.kubernetes.as_ref().is_none_or(|version| *version == record.kubernetes);
    ensure!(
        nodes && version && (!wanted.fsync || record.fsync),
        "the rig runs with {} nodes, Kubernetes {}, fsync {}; take it down first",
        record.nodes,
        record.kubernetes,
        record.fsync
    );
    Ok(())
}

fn ensure_all(layout: &Layout, record: &Record) -> Result<()> {
    layout.write_record(record)?;
    pki::create(layout, record).context("making certificates")?;
    cgroup::create(&host_cgroup())?;
    net::create_control().context("making the control plane's network")?;
    mend(layout, record)?;
    // A node that died is `Ready` until somebody misses it; only a new heartbeat counts.
    let dead: Vec<_> = record.nodes().filter(|node| !node::running(layout, *node)).collect();
    let last: BTreeMap<Node, String> =
        dead.into_iter().filter_map(|node| Some((node, heartbeat(layout, record, node).ok()?))).collect();
    // A node is slow to give birth to and needs no API server for it.
    thread::scope(|scope| {
        let births: Vec<_> = record
            .nodes()
            .map(|node| {
                scope.spawn(move || {
                    node::start(layout, record, node).with_context(|| format!("starting {}", node.name()))
                })
            })
            .collect();
        let plane = control::ensure(layout, record);
        for birth in births {
            birth.join().map_err(|_| anyhow!("a thread died"))??;
        }
        plane
    })?;
    eprintln!("✓ the control plane is ready");
    for node in record.nodes() {
        ready(layout, record, node, last.get(&node))?;
    }
    control::all_alive(layout, record)?;
    links(layout, &record.programs)
}

/// Undoes every fault that somebody has made and not undone.
fn mend(layout: &Layout, record: &Record) -> Result<()> {
    for (_, process) in process::all_recorded(layout) {
        process.signal(Signal::CONT);
    }
    for node in record.nodes() {
        node::cut(layout, node, false)?;
        cgroup::thaw_all(&node.cgroup());
    }
    Ok(())
}

/// Waits until a node is `Ready`; says what its programs wrote when it is not.
fn ready(layout: &Layout, record: &Record, node: Node, last: Option<&String>) -> Result<()> {
    let name = node.name();
    let started = Instant::now();
    loop {
        let mut get = control::kubectl(layout, &record.programs);
        let condition = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        get.args(["get", "node", &name, "-o", condition, "--request-timeout=5s"]);
        let seen = command::output(&mut get);
        let beats = || last.is_none_or(|last| heartbeat(layout, record, node).is_ok_and(|now| now != *last));
        if seen.as_deref().is_ok_and(|status| status == "True") && beats() {
            return Ok(());
        }
        let alive = node::running(layout, node);
        if !alive || started.elapsed() > READY {
            let logs = [name.clone(), format!("containerd-{name}"), format!("kubelet-{name}")];
            let logs =
                logs.map(|log| format!("the end of {log}'s log:\n  {}", control::end_of_log(layout, &log)));
            let what = if alive { "is not ready" } else { "died" };
            bail!("{name} {what}: {seen:?}\n{}", logs.join("\n"));
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// When a node was last heard of.
fn heartbeat(layout: &Layout, record: &Record, node: Node) -> Result<String> {
    let mut get = control::kubectl(layout, &record.programs);
    get.args([
        "get",
        "lease",
        "--namespace=kube-node-lease",
        &node.name(),
        "-o",
        "jsonpath={.spec.renewTime}",
    ]);
    command::output(get.arg("--request-timeout=2s"))
}

/// Puts `kubectl` and `helm` where `rig env` points to.
fn links(layout: &Layout, programs: &Programs) -> Result<()> {
    let directory = layout.home().join("bin");
    std::fs::create_dir_all(&directory).context("creating the directory of programs")?;
    for (name, target) in [("kubectl", &programs.kube), ("helm", &programs.helm)] {
        let link = directory.join(name);
        crate::cache::remove(&link)?;
        std::os::unix::fs::symlink(target, &link).with_context(|| format!("linking {name}"))?;
    }
    Ok(())
}
