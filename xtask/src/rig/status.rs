//! Says how the rig is.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use super::layout::{Layout, Node, Record};
use super::process::recorded;
use super::{cgroup, control, net, node};
use crate::command;
use crate::golang::Programs;

/// Prints the state of every part; fails unless all of it is well.
pub(crate) fn run(layout: &Layout) -> Result<ExitCode> {
    let Some(record) = layout.record()? else {
        println!("the rig is down");
        return Ok(ExitCode::FAILURE);
    };
    let mut out = std::io::stdout().lock();
    let mut well = record.complete;
    writeln!(
        out,
        "Kubernetes {}, {} nodes, etcd {}",
        record.kubernetes,
        record.nodes,
        if record.fsync { "with fsync" } else { "without fsync" }
    )?;
    if !record.complete {
        writeln!(out, "its start did not come to an end")?;
    }
    for &component in control::components(&record) {
        let state = match recorded(layout, component) {
            Some(identity) if stopped(identity.pid) => "stopped",
            Some(identity) if identity.alive() => "running",
            _ => "dead",
        };
        well &= state == "running";
        let pid = recorded(layout, component).map_or_else(String::new, |identity| identity.pid.to_string());
        writeln!(out, "{component:20} {state:10} {pid}")?;
    }
    let ready = readiness(layout, &record.programs);
    for node in record.nodes() {
        let mut state = Vec::new();
        if !node::running(layout, node) {
            state.push("dead");
        } else if !net::plugged(node) {
            state.push("cut");
        } else if cgroup::frozen(&node.cgroup()) {
            state.push("frozen");
        } else {
            state.push("running");
        }
        state.push(match ready.as_ref().ok().and_then(|ready| is_ready(ready, node)) {
            Some(true) => "Ready",
            Some(false) => "NotReady",
            None => "unknown to the API server",
        });
        well &= state == ["running", "Ready"];
        writeln!(
            out,
            "{:20} {:10} {} {} {}",
            node.name(),
            state.join(", "),
            node.address(),
            node.pod_range(),
            node.zone()
        )?;
    }
    writeln!(out, "relay                127.0.0.1:{}", record.relay_port)?;
    writeln!(out, "kubeconfig           {}", layout.kubeconfig().display())?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether every program runs, every node is ready, and no fault is left that somebody made.
pub(crate) fn healthy(layout: &Layout, record: &Record) -> bool {
    let running =
        |name: &str| recorded(layout, name).is_some_and(|found| found.alive() && !stopped(found.pid));
    let well =
        |node: Node| node::running(layout, node) && net::plugged(node) && !cgroup::frozen(&node.cgroup());
    control::components(record).iter().copied().all(running)
        && record.nodes().all(well)
        && readiness(layout, &record.programs)
            .is_ok_and(|ready| record.nodes().all(|node| is_ready(&ready, node) == Some(true)))
}

/// What to type next.
pub(crate) fn introduce(layout: &Layout, record: &Record) {
    println!("export KUBECONFIG={}", layout.kubeconfig().display());
    eprintln!(
        "the API server is at 127.0.0.1:{}; `cargo xtask rig kubectl get nodes`, `cargo xtask rig down`",
        record.relay_port
    );
}

fn readiness(layout: &Layout, programs: &Programs) -> Result<Value> {
    let mut get = control::kubectl(layout, programs);
    get.args(["get", "nodes", "-o", "json", "--request-timeout=3s"]);
    serde_json::from_str(&command::output(&mut get)?).context("reading the list of nodes")
}

fn is_ready(nodes: &Value, node: Node) -> Option<bool> {
    let name = node.name();
    let found = nodes["items"].as_array()?.iter().find(|item| item["metadata"]["name"] == name.as_str())?;
    let conditions = found["status"]["conditions"].as_array()?;
    Some(conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True"))
}

fn stopped(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && line.contains("T (stopped)"))
}
