//! Control groups: one for the programs of the rig, one per node for its pods. They bound what `down` may end,
//! freeze a node's pods, and keep the kubelets of one machine out of each other's way.
//!
//! Two kubelets with one root would kill each other's pods as orphans.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::layout::{EVERY_RIG, cgroup_prefix};
use super::process::Identity;

/// Where the control groups of this machine are mounted.
enum Mounted {
    /// One tree per controller, and perhaps a new one beside them that has none.
    Many(Vec<PathBuf>, Option<PathBuf>),
    /// One tree for all.
    One(PathBuf),
}

fn mounted() -> Mounted {
    let table = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut many = Vec::new();
    let mut one = None;
    for line in table.lines() {
        let mut words = line.split_whitespace().skip(1);
        match (words.next(), words.next()) {
            (Some(path), Some("cgroup")) => many.push(PathBuf::from(path)),
            (Some(path), Some("cgroup2")) => one = Some(PathBuf::from(path)),
            _ => {}
        }
    }
    match (many.is_empty(), one) {
        (true, Some(path)) => Mounted::One(path),
        (_, one) => Mounted::Many(many, one),
    }
}

/// The trees that have controllers.
fn trees() -> Vec<PathBuf> {
    match mounted() {
        Mounted::Many(trees, _) => trees,
        Mounted::One(tree) => vec![tree],
    }
}

/// All trees: runc makes its groups in the one without controllers, too.
fn every_tree() -> Vec<PathBuf> {
    match mounted() {
        Mounted::Many(trees, one) => trees.into_iter().chain(one).collect(),
        Mounted::One(tree) => vec![tree],
    }
}

/// Makes a control group in every tree.
pub(crate) fn create(name: &str) -> Result<()> {
    for tree in trees() {
        let group = tree.join(name);
        fs::create_dir_all(&group).with_context(|| format!("creating {}", group.display()))?;
        // A new group of the cpuset controller takes no process before it has processors and memory.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read(tree.join(file))
                && tree.ends_with("cpuset")
            {
                fs::write(group.join(file), all).with_context(|| format!("writing {file} of {name}"))?;
            }
        }
    }
    if let Mounted::One(tree) = mounted() {
        let available = fs::read_to_string(tree.join("cgroup.controllers")).unwrap_or_default();
        for controller in available.split_whitespace() {
            // Where the machine's own manager keeps one for itself, pods do without it.
            let _ = fs::write(tree.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
    Ok(())
}

/// Moves a process into a control group of every tree.
pub(crate) fn join(name: &str, pid: i32) -> Result<()> {
    for tree in trees() {
        let path = tree.join(name).join("cgroup.procs");
        match fs::write(&path, pid.to_string()) {
            Ok(()) => {}
            // It ended meanwhile; whoever waits for it says so better.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
            Err(error) => return Err(error).with_context(|| format!("writing {}", path.display())),
        }
    }
    Ok(())
}

/// The processes in and below the control groups of this name, or in all of ours for [`cgroup_prefix`].
pub(crate) fn processes(name: &str) -> Vec<Identity> {
    let mut found = Vec::new();
    for root in roots(name) {
        walk(&root, &mut |group| {
            let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            // 0 is a process of another PID namespace, which cannot be one of ours.
            found.extend(
                text.split_whitespace()
                    .filter_map(|pid| Identity::of(pid.parse().ok().filter(|pid| *pid > 0)?)),
            );
        });
    }
    found.sort();
    found.dedup();
    found
}

/// Stops or continues every process below a control group at once.
pub(crate) fn freeze(name: &str, frozen: bool) -> Result<()> {
    let (path, word) = match mounted() {
        Mounted::Many(trees, _) => {
            let tree =
                trees.into_iter().find(|tree| tree.ends_with("freezer")).context("no freezer is mounted")?;
            (tree.join(name).join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
        }
        Mounted::One(tree) => (tree.join(name).join("cgroup.freeze"), if frozen { "1" } else { "0" }),
    };
    fs::write(&path, word).with_context(|| format!("writing {}", path.display()))
}

/// Lets everything in our control groups run, wherever it was stopped: on the old trees a frozen process does
/// not even die.
pub(crate) fn thaw_all(name: &str) {
    for root in roots(name) {
        walk(&root, &mut |group| {
            let _ = fs::write(group.join("freezer.state"), "THAWED");
            let _ = fs::write(group.join("cgroup.freeze"), "0");
        });
    }
}

/// Whether the pods of a node are stopped.
pub(crate) fn frozen(name: &str) -> bool {
    trees().iter().any(|tree| {
        let read = |file| fs::read_to_string(tree.join(name).join(file)).unwrap_or_default();
        matches!(read("freezer.self_freezing").trim(), "1") || matches!(read("cgroup.freeze").trim(), "1")
    })
}

/// Removes our empty control groups, deepest first, and returns those that are still in use.
pub(crate) fn remove(name: &str) -> Vec<PathBuf> {
    let mut left = Vec::new();
    for root in roots(name) {
        walk(&root, &mut |group| {
            if fs::remove_dir(group).is_err() && group.exists() {
                left.push(group.to_owned());
            }
        });
    }
    left
}

/// Whether there is a control group of any rig, of this name or another.
pub(crate) fn of_any_rig() -> bool {
    every_tree().iter().any(|tree| {
        let mut entries = fs::read_dir(tree).into_iter().flatten().filter_map(Result::ok);
        entries.any(|entry| entry.file_name().to_string_lossy().starts_with(EVERY_RIG))
    })
}

/// The control groups of one name, or all of ours for [`cgroup_prefix`].
fn roots(name: &str) -> Vec<PathBuf> {
    debug_assert!(name.starts_with(&cgroup_prefix()), "only our own control groups are ever touched");
    let all = name == cgroup_prefix();
    let wanted = |found: &str| found == name || (all && found.starts_with(name));
    let mut found = Vec::new();
    for tree in every_tree() {
        let entries = fs::read_dir(&tree).into_iter().flatten().filter_map(Result::ok);
        found.extend(
            entries.filter(|entry| wanted(&entry.file_name().to_string_lossy())).map(|entry| entry.path()),
        );
    }
    found
}

/// Visits a directory after everything below it.
fn walk(directory: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
    visit(directory);
}
