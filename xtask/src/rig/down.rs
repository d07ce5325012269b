//! Removes the rig, whatever is left of it: processes by recorded identity and by membership in our control
//! groups and network namespaces, then the groups, the namespaces, mounts and files. It never asks a process
//! for its name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::FlockOperation;
use rustix::mount::UnmountFlags;
use rustix::process::Signal;

use super::layout::{Layout, cgroup_prefix};
use super::process::{Identity, all_recorded, in_netns};
use super::{cgroup, net};
use crate::cache::remove;

/// How long killed processes and the kernel's own clean-up may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long to wait for somebody else who starts or ends the rig.
const TURN: Duration = Duration::from_secs(3600);

/// Whoever starts or ends the rig holds this.
pub(crate) fn lock(layout: &Layout) -> Result<File> {
    let path = layout.lock();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    let started = Instant::now();
    let mut told = false;
    while rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        ensure!(started.elapsed() < TURN, "somebody else has held {} for an hour", path.display());
        if !told {
            eprintln!("… waiting for another command that starts or ends the rig");
            told = true;
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(file)
}

/// Removes the rig.
pub(crate) fn run(layout: &Layout) -> Result<()> {
    let _lock = lock(layout)?;
    clear(layout)?;
    eprintln!("✓ the rig is down");
    Ok(())
}

/// Removes everything; the caller holds the lock.
pub(crate) fn clear(layout: &Layout) -> Result<()> {
    let started = Instant::now();
    loop {
        // Each round looks again: a process may have started another before it was killed.
        let processes = ours(layout);
        cgroup::thaw_all(&cgroup_prefix());
        for process in &processes {
            process.signal(Signal::KILL);
        }
        if processes.is_empty() {
            break;
        }
        ensure!(started.elapsed() < LIMIT, "these processes do not die: {processes:?}");
        thread::sleep(Duration::from_millis(50));
    }
    for netns in net::ours() {
        net::delete(&netns)?;
    }
    // The kernel takes a moment to see that a group is empty.
    loop {
        let left = cgroup::remove(&cgroup_prefix());
        if left.is_empty() {
            break;
        }
        if started.elapsed() > LIMIT {
            bail!("these control groups are still in use: {left:?}");
        }
        thread::sleep(Duration::from_millis(50));
    }
    unmount(&layout.state())?;
    keep_logs(layout);
    remove(&layout.kubeconfig())?;
    remove(&layout.state())?;
    // The mount point that nodes needed; it goes only when it is empty. The nodes of another rig have mounts on it in
    // namespaces of their own, which the kernel would take off together with the directory.
    if !cgroup::of_any_rig() {
        let _ = fs::remove_dir("/var/lib/kubelet");
    }
    Ok(())
}

/// The logs of a rig that is gone stay until the next one goes.
fn keep_logs(layout: &Layout) {
    let (now, last) = (layout.path("log"), layout.home().join("last-log"));
    if now.exists() && remove(&last).is_ok() {
        let _ = fs::rename(now, last);
    }
}

fn ours(layout: &Layout) -> BTreeSet<Identity> {
    let own = std::process::id();
    let mut found: BTreeSet<Identity> =
        all_recorded(layout).into_iter().map(|(_, identity)| identity).collect();
    found.retain(|identity| identity.alive());
    found.extend(cgroup::processes(&cgroup_prefix()));
    for netns in net::ours() {
        if let Ok(namespace) = fs::metadata(Path::new("/run/netns").join(netns)) {
            found.extend(in_netns(namespace.ino()));
        }
    }
    found.retain(|identity| u32::try_from(identity.pid) != Ok(own));
    found
}

/// Unmounts whatever is mounted below a directory in the machine's own mount namespace, innermost first.
fn unmount(below: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the table of mounts")?;
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(below))
        .collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    for point in points {
        rustix::mount::unmount(&point, UnmountFlags::DETACH)
            .with_context(|| format!("unmounting {}", point.display()))?;
    }
    Ok(())
}
