//! Processes as what they are: a number together with the moment it began, because numbers are used again.
//!
//! Nothing is ever ended because of its name. A process belongs to the rig when its identity was recorded, or
//! when it is in one of the rig's network namespaces or control groups.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::layout::{Layout, host_cgroup, instance, write};

/// One process, for ever: the kernel gives no second one the same number and start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Number in the first PID namespace.
    pub(crate) pid: i32,
    /// Clock ticks after boot.
    start: u64,
}

impl Identity {
    /// The process that has this number now; none when it has ended, even if nobody has fetched its status.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything, blanks and parentheses included.
        let (_, fields) = text.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let state = fields.next()?;
        let start = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, start })
    }

    /// Whether this very process still runs.
    pub(crate) fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal to this process and to no other: the descriptor is taken before the identity is checked.
    pub(crate) fn signal(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        if let Ok(descriptor) = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            && self.alive()
        {
            // Gone in this moment is as good as gone before.
            let _ = rustix::process::pidfd_send_signal(&descriptor, signal);
        }
    }

    /// Its children.
    pub(crate) fn children(self) -> Vec<Self> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| Self::of(pid.parse().ok()?)).collect()
    }
}

/// All processes inside a network namespace, told by its inode.
pub(crate) fn in_netns(inode: u64) -> Vec<Identity> {
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid) != Ok(own))
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|namespace| namespace.ino() == inode)
        })
        .filter_map(Identity::of)
        .collect()
}

/// A program of the rig that runs in the background.
pub(crate) struct Service<'a> {
    /// What it is called in logs and commands.
    pub(crate) name: &'a str,
    /// The network namespace it runs in; the ordinary one when there is none.
    pub(crate) netns: Option<&'a str>,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
}

impl Service<'_> {
    /// Starts the program unless it runs already.
    pub(crate) fn ensure(&self, layout: &Layout) -> Result<Identity> {
        if let Some(identity) = recorded(layout, self.name).filter(|identity| identity.alive()) {
            return Ok(identity);
        }
        let path = layout.log(self.name);
        fs::create_dir_all(layout.path("log")).context("creating the directory of logs")?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        // setsid and nsenter both become the next program, so the number stays the same.
        let mut command = Command::new("setsid");
        if let Some(netns) = self.netns {
            command.args(["nsenter", &format!("--net=/run/netns/{netns}"), "--"]);
        }
        command
            .args(&self.command)
            // A proxy or any other setting of the user's shell must not leak into the rig.
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("MATRIARCH_CACHE", layout.cache().root())
            .env("MATRIARCH_RIG", instance())
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(log.try_clone().context("copying a descriptor")?)
            .stdout(log);
        let child = command.spawn().with_context(|| format!("starting {}", self.name))?;
        let pid = i32::try_from(child.id()).context("a process number out of range")?;
        let identity = Identity::of(pid).with_context(|| format!("{} ended at once", self.name))?;
        let path = layout.path(&format!("process/{}.json", self.name));
        write(path, serde_json::to_vec(&identity).context("recording a process")?)?;
        cgroup::join(&host_cgroup(), pid)?;
        Ok(identity)
    }
}

/// The recorded identity of a program, running or not.
pub(crate) fn recorded(layout: &Layout, name: &str) -> Option<Identity> {
    let bytes = fs::read(layout.path(&format!("process/{name}.json"))).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Every recorded program with its identity, in the order of their names.
pub(crate) fn all_recorded(layout: &Layout) -> Vec<(String, Identity)> {
    let Ok(entries) = fs::read_dir(layout.path("process")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort();
    names.into_iter().filter_map(|name| recorded(layout, &name).map(|identity| (name, identity))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_another_with_the_same_number() {
        let own = i32::try_from(std::process::id()).unwrap();
        let identity = Identity::of(own).unwrap();
        assert!(identity.alive());
        assert!(!Identity { pid: own, start: identity.start + 1 }.alive());
    }

    #[test]
    fn a_dead_child_is_dead_before_it_is_waited_for() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while Identity::of(pid).is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
