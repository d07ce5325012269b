//! What is broken, how, and how it is mended. Whoever adds a fault adds its recovery.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::names::{self, paths};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, AttachParams, Patch, PatchParams};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::cluster::Cluster;
use crate::seen::Member;
use crate::world::World;

/// Bound of a command inside a container.
const EXEC: Duration = Duration::from_secs(20);

/// A fault of the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// `kill -9` of the postmaster alone.
    Postmaster,
    /// SIGKILL to every process of the container at once, PID 1 included (K8).
    Container,
    /// The pod deleted, with its whole grace period.
    Delete,
    /// The pod deleted with a grace period of 0.
    DeleteByForce,
    /// Its node without power.
    NodePower,
    /// Its node without network.
    NodeNetwork,
}

/// What the rig must be told to mend.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    cut: BTreeSet<String>,
    dark: BTreeSet<String>,
    cordoned: BTreeSet<String>,
    api_stopped: bool,
}

impl Fault {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self::Postmaster,
        Self::Container,
        Self::Delete,
        Self::DeleteByForce,
        Self::NodePower,
        Self::NodeNetwork,
    ];

    /// As on the command line and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postmaster => "postmaster",
            Self::Container => "container",
            Self::Delete => "delete",
            Self::DeleteByForce => "delete-by-force",
            Self::NodePower => "node-power",
            Self::NodeNetwork => "node-network",
        }
    }

    /// Breaks it.
    pub(crate) async fn make(self, world: &World, cluster: &Cluster, master: &Member) -> Result<()> {
        let node = master.node.as_deref().context("the master has no node")?;
        match self {
            Self::Postmaster => kill_postmaster(world, cluster, &master.name).await,
            Self::Container => {
                let id = master.container.as_deref().context("no container")?;
                kill_container(world, node, id, 3).await
            }
            Self::Delete => cluster.delete_pod(world, &master.name, None).await,
            Self::DeleteByForce => cluster.delete_pod(world, &master.name, Some(0)).await,
            Self::NodePower => {
                world.outstanding.borrow_mut().dark.insert(node.to_owned());
                world.rig(&["node", "kill", node]).await.map(drop)
            }
            Self::NodeNetwork => cut(world, node).await,
        }
    }
}

/// Cuts a node off.
pub(crate) async fn cut(world: &World, node: &str) -> Result<()> {
    world.outstanding.borrow_mut().cut.insert(node.to_owned());
    world.rig(&["node", "cut", node]).await.map(drop)
}

/// Lets no new pod onto any node; those that run stay.
pub(crate) async fn cordon_all(world: &World) -> Result<()> {
    for node in world.nodes().await? {
        world.outstanding.borrow_mut().cordoned.insert(node.clone());
        unschedulable(world, &node, true).await?;
    }
    Ok(())
}

async fn unschedulable(world: &World, node: &str, is: bool) -> Result<()> {
    let change = json!({"spec": {"unschedulable": is}});
    Api::<Node>::all(world.client.clone())
        .patch(node, &PatchParams::default(), &Patch::Merge(&change))
        .await
        .with_context(|| format!("make {node} unschedulable: {is}"))?;
    Ok(())
}

/// Freezes the API server.
pub(crate) async fn stop_api(world: &World) -> Result<()> {
    world.outstanding.borrow_mut().api_stopped = true;
    world.rig(&["api", "stop"]).await.map(drop)
}

/// Mends everything that is broken now.
pub(crate) async fn mend(world: &World) -> Result<()> {
    let broken = std::mem::take(&mut *world.outstanding.borrow_mut());
    if broken.api_stopped {
        world.rig(&["api", "cont"]).await?;
    }
    for node in broken.cordoned {
        unschedulable(world, &node, false).await?;
    }
    for node in broken.cut {
        world.rig(&["node", "heal", &node]).await?;
    }
    for node in broken.dark {
        world.rig(&["node", "start", &node]).await?;
    }
    Ok(())
}

/// Runs a command in a member's PostgreSQL container and returns its standard output.
pub(crate) async fn exec(world: &World, namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
    let run = async {
        let parameters = AttachParams::default().container(names::CONTAINER).stdout(true).stderr(true);
        let mut process = world.api::<Pod>(namespace).exec(pod, command.iter().copied(), &parameters).await?;
        let (mut out, mut err) = (String::new(), String::new());
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let status = process.take_status();
        let read_out = async {
            match stdout {
                Some(mut stream) => stream.read_to_string(&mut out).await,
                None => Ok(0),
            }
        };
        let read_err = async {
            match stderr {
                Some(mut stream) => stream.read_to_string(&mut err).await,
                None => Ok(0),
            }
        };
        tokio::try_join!(read_out, read_err)?;
        if let Some(status) = status
            && let Some(status) = status.await
        {
            ensure!(
                status.status.as_deref() == Some("Success"),
                "{}: {}",
                status.message.unwrap_or_default(),
                err.trim()
            );
        }
        Ok(out)
    };
    tokio::time::timeout(EXEC, run)
        .await
        .with_context(|| format!("{command:?} in {pod}: longer than {EXEC:?}"))?
        .with_context(|| format!("{command:?} in {pod}"))
}

async fn kill_postmaster(world: &World, cluster: &Cluster, pod: &str) -> Result<()> {
    let script = format!("kill -9 \"$(head -n 1 {}/postmaster.pid)\"", paths::PGDATA);
    exec(world, &cluster.namespace, pod, &["sh", "-c", &script]).await.map(drop)
}

/// Names every process by its control group, then kills them with one signal each in one go, the container's PID 1 before
/// the others: in a namespace of processes, its death takes the rest along at that instant, as an out-of-memory kill of
/// the whole group does, and nobody is left to notice that a child died. `id` as the pod's status has it; fewer processes
/// than `least` are an error.
pub(crate) async fn kill_container(world: &World, node: &str, id: &str, least: usize) -> Result<()> {
    let id = id.rsplit('/').next().unwrap_or_default();
    ensure!(
        id.len() >= 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id} is not a container's id"
    );
    // Names are listed as text, 10 before 9, so PID 1 is looked for: its last number in NSpid, the one inside, is 1.
    // Backends come and go while the list is read; one that has gone already is no failure.
    let script = format!(
        "pids=$(grep -l {id} /proc/[0-9]*/cgroup 2>/dev/null | cut -d/ -f3); first=; rest=; \
         for pid in $pids; do \
         case \"$(grep NSpid /proc/$pid/status 2>/dev/null)\" in *[!0-9]1) first=\"$first $pid\";; *) rest=\"$rest $pid\";; esac; \
         done; \
         test -n \"$first\" && {{ kill -9 $first $rest 2>/dev/null; echo $first $rest; }}"
    );
    let killed = world.rig(&["shell", node, "sh", "-c", &script]).await?;
    ensure!(killed.split_whitespace().count() >= least, "killed only [{}]", killed.trim());
    Ok(())
}
