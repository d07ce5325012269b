//! Signals to processes of a container, from inside it or from its node.
//!
//! A process is found by the container's identifier in its control group and by what it runs. From inside a container its
//! own PID 1 cannot be stopped, so what stops processes comes from the node.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::names;
use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;
use tokio::io::AsyncReadExt;

use super::Victim;
use crate::world::World;

/// Bound of a command inside a container.
const EXEC: Duration = Duration::from_secs(20);

/// Runs a command in a member's PostgreSQL container and returns its standard output.
pub(crate) async fn exec(world: &World, namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
    exec_in(world, namespace, pod, names::CONTAINER, command).await
}

async fn exec_in(
    world: &World,
    namespace: &str,
    pod: &str,
    container: &str,
    command: &[&str],
) -> Result<String> {
    let run = async {
        let parameters = AttachParams::default().container(container).stdout(true).stderr(true);
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

/// A signal to the postmaster alone.
pub(super) async fn signal_postmaster(world: &World, victim: &Victim, signal: &str) -> Result<()> {
    let script = format!("kill -{signal} \"$(head -n 1 {}/postmaster.pid)\"", victim.pgdata);
    let command = ["sh", "-c", &script];
    exec_in(world, &victim.namespace, &victim.pod, &victim.container, &command).await.map(drop)
}

/// Stops every process of the victim's container whose command line matches this pattern of a shell.
pub(super) async fn stop(world: &World, victim: &Victim, pattern: &str) -> Result<()> {
    let script = each_process(
        &victim.container_id,
        &format!(
            "case \"$(tr '\\0' ' ' < /proc/$pid/cmdline 2>/dev/null)\" in {pattern}) kill -STOP $pid && echo $pid;; esac"
        ),
    )?;
    let stopped = world.rig(&["shell", &victim.node, "sh", "-c", &script]).await?;
    ensure!(!stopped.trim().is_empty(), "no process of {} matches {pattern}", victim.pod);
    Ok(())
}

/// Lets every stopped process of a container go on; nothing when it has ended meanwhile.
pub(super) async fn go_on(world: &World, node: &str, container_id: &str) -> Result<()> {
    let act = "case \"$(cat /proc/$pid/stat 2>/dev/null)\" in *') T '*) kill -CONT $pid;; esac";
    let script = format!("{}; true", each_process(container_id, act)?);
    world.rig(&["shell", node, "sh", "-c", &script]).await.map(drop)
}

/// Puts a container into the freezer or takes it out; that it is gone is an error only when it is to be frozen.
pub(super) async fn freeze(world: &World, node: &str, container_id: &str, frozen: bool) -> Result<()> {
    let id = checked(container_id)?;
    let (old, new) = if frozen { ("FROZEN", "1") } else { ("THAWED", "0") };
    // Machines with one tree of control groups have another file; those with many have both, and pods are in the old one.
    let script = format!(
        "groups=$(find /sys/fs/cgroup -type d -name '*{id}*' 2>/dev/null); done=; \
         for group in $groups; do test -e $group/freezer.state && echo {old} > $group/freezer.state && done=1; done; \
         test -n \"$done\" || for group in $groups; do test -e $group/cgroup.freeze && echo {new} > $group/cgroup.freeze && done=1; done; \
         echo \"$done\""
    );
    let done = world.rig(&["shell", node, "sh", "-c", &script]).await?;
    ensure!(!frozen || done.trim() == "1", "no control group of {id} can be frozen");
    Ok(())
}

fn each_process(container_id: &str, act: &str) -> Result<String> {
    let id = checked(container_id)?;
    Ok(format!("for pid in $(grep -l {id} /proc/[0-9]*/cgroup 2>/dev/null | cut -d/ -f3); do {act}; done"))
}

/// The identifier without its scheme; it becomes part of a script, so it must be nothing else.
fn checked(id: &str) -> Result<&str> {
    let id = id.rsplit('/').next().unwrap_or_default();
    ensure!(
        id.len() >= 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id} is not a container's id"
    );
    Ok(id)
}

/// Names every process by its control group, then kills them with one signal each in one go, the container's PID 1 before
/// the others: in a namespace of processes, its death takes the rest along at that instant, as an out-of-memory kill of
/// the whole group does, and nobody is left to notice that a child died. `id` as the pod's status has it; fewer processes
/// than `least` are an error.
pub(crate) async fn kill_container(world: &World, node: &str, id: &str, least: usize) -> Result<()> {
    let id = checked(id)?;
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
