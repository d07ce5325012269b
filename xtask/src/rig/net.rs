//! The networks of the rig: a namespace with a bridge for the control plane, one per node, a cable from each
//! node to the bridge, and routes between the pod ranges. There is no way out of them, by construction.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::thread::LinkNameSpaceType;

use super::layout::{CONTROL_ADDRESS, DNS_ADDRESS, Node, Record, control_netns, netns_prefix};
use crate::command;

/// Whether a network namespace of this name is there.
pub(crate) fn exists(netns: &str) -> bool {
    Path::new("/run/netns").join(netns).exists()
}

/// The network namespaces of the rig that are there.
pub(crate) fn ours() -> Vec<String> {
    let prefix = netns_prefix();
    let entries = fs::read_dir("/run/netns").into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

/// Link-layer address of the bridge, locally administered.
const BRIDGE: &str = "02:6d:61:74:72:01";

/// Makes the network of the control plane.
pub(crate) fn create_control() -> Result<()> {
    if exists(&control_netns()) {
        return Ok(());
    }
    ip(&["netns", "add", &control_netns()])?;
    batch(
        &control_netns(),
        &[
            "link set lo up".to_owned(),
            // An address of its own: else it is the lowest of its cables', which changes when that node is killed, and the
            // other nodes ask a station that is gone for names until their neighbour entries have run out.
            format!("link add br0 address {BRIDGE} type bridge"),
            format!("addr add {CONTROL_ADDRESS}/24 dev br0"),
            format!("addr add {DNS_ADDRESS}/24 dev br0"),
            "link set br0 up".to_owned(),
        ],
    )?;
    forward(&control_netns())
}

/// Makes the network of a node and plugs it in.
pub(crate) fn create_node(node: Node, record: &Record) -> Result<()> {
    let netns = node.netns();
    let made = make_node(node, &netns, record);
    if made.is_err() {
        delete_node(node)?;
    }
    made
}

fn make_node(node: Node, netns: &str, record: &Record) -> Result<()> {
    ip(&["netns", "add", netns])?;
    batch(
        &control_netns(),
        &[
            format!("link add {} type veth peer name eth0 netns {netns}", node.cable()),
            format!("link set {} master br0 up", node.cable()),
            format!("route replace {} via {}", node.pod_range(), node.address()),
        ],
    )?;
    let mut inside = vec![
        "link set lo up".to_owned(),
        format!("addr add {}/24 dev eth0", node.address()),
        "link set eth0 up".to_owned(),
        format!("route add default via {CONTROL_ADDRESS}"),
    ];
    for other in record.nodes().filter(|other| *other != node) {
        inside.push(format!("route add {} via {}", other.pod_range(), other.address()));
    }
    batch(netns, &inside)?;
    forward(netns)
}

/// Removes a node's network.
pub(crate) fn delete_node(node: Node) -> Result<()> {
    // The kernel takes a namespace down in its own time, and the cable's name would be taken until then.
    let _ = batch(&control_netns(), &[format!("link delete {}", node.cable())]);
    delete(&node.netns())
}

/// Pulls a node's cable, or plugs it in again. Both directions end at once, established connections included.
pub(crate) fn plug(node: Node, plugged: bool) -> Result<()> {
    let state = if plugged { "up" } else { "down" };
    batch(&control_netns(), &[format!("link set {} {state}", node.cable())])
}

/// Whether a node has a cable at all; a dead one has none.
pub(crate) fn cabled(node: Node) -> bool {
    let show = ["-n", &control_netns(), "link", "show", &node.cable()];
    command::output(&mut command::command("ip", show)).is_ok()
}

/// Whether a node's cable is plugged in.
pub(crate) fn plugged(node: Node) -> bool {
    let mut show = command::command("ip", ["-n", &control_netns(), "-json", "link", "show", &node.cable()]);
    command::output(&mut show).is_ok_and(|links| links.contains("\"UP\""))
}

/// Removes a network namespace, together with the cables that end in it.
pub(crate) fn delete(netns: &str) -> Result<()> {
    if !exists(netns) {
        return Ok(());
    }
    let deleted = ip(&["netns", "delete", netns]);
    // A file without a namespace is what an interrupted `ip netns add` leaves.
    let _ = fs::remove_file(Path::new("/run/netns").join(netns));
    if exists(netns) { deleted } else { Ok(()) }
}

/// Does something inside a network namespace. What is opened there stays there.
pub(crate) fn within<T: Send>(netns: &str, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = Path::new("/run/netns").join(netns);
    let namespace = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    // A namespace belongs to a thread, so a thread of its own leaves the others where they are.
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .context("entering a network namespace")?;
            act()
        });
        inside.join().map_err(|_| anyhow!("a thread inside a network namespace died"))?
    })
}

fn forward(netns: &str) -> Result<()> {
    within(netns, || fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("turning on forwarding"))
}

fn ip(arguments: &[&str]) -> Result<()> {
    command::output(Command::new("ip").args(arguments)).map(drop)
}

fn batch(netns: &str, lines: &[String]) -> Result<()> {
    let mut ip = command::command("ip", ["-n", netns, "-batch", "-"]);
    command::feed(&mut ip, (lines.join("\n") + "\n").as_bytes()).map(drop)
}
