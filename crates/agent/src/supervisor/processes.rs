//! Who lives in this container, whose descendant it is, and what belongs to Postgres.
//!
//! Each backend calls setsid, so no process group and no session names them all: ancestry does, and for processes
//! that somebody started from outside (`kubectl exec`), binary and working directory together.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// One process, as `/proc/PID/stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    parent: i32,
    /// In ticks since the kernel's boot: with the pid an identity.
    started: u64,
    /// A zombie: it does nothing any more.
    ended: bool,
}

/// All processes that this one can see.
#[derive(Debug, Default)]
pub(super) struct Processes(BTreeMap<i32, Process>);

/// Where a process comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The agent or a tool of it.
    Agent,
    /// The postmaster or a descendant.
    Postmaster,
    /// An orphan of either, which the supervisor has inherited.
    Orphan,
    /// Somebody else's.
    Outside,
    /// Its parent ended while we looked.
    Unclear,
}

/// The roots of the tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Roots {
    pub(super) supervisor: i32,
    pub(super) agent: Option<i32>,
    pub(super) postmaster: Option<i32>,
}

/// What makes a process from outside one of Postgres: its binary *and* its directory, by device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    program: (u64, u64),
    directory: (u64, u64),
}

impl Mark {
    pub(super) fn of(program: &Path, directory: &Path) -> io::Result<Self> {
        Ok(Self { program: identity(program)?, directory: identity(directory)? })
    }

    fn fits(self, pid: i32) -> bool {
        let proc = Path::new("/proc").join(pid.to_string());
        identity(&proc.join("exe")).is_ok_and(|program| program == self.program)
            && identity(&proc.join("cwd")).is_ok_and(|directory| directory == self.directory)
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Processes {
    /// Reads `/proc`. Processes that end meanwhile are left out.
    pub(super) fn list() -> io::Result<Self> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(process) = read(pid) {
                all.insert(pid, process);
            }
        }
        Ok(Self(all))
    }

    fn origin(&self, pid: i32, roots: Roots) -> Origin {
        let mut at = pid;
        for _ in 0..=self.0.len() {
            if Some(at) == roots.agent {
                return Origin::Agent;
            }
            if Some(at) == roots.postmaster {
                return Origin::Postmaster;
            }
            if at == roots.supervisor {
                return Origin::Orphan;
            }
            match self.0.get(&at) {
                Some(process) if process.parent == 0 => return Origin::Outside,
                Some(process) => at = process.parent,
                None => return Origin::Unclear,
            }
        }
        Origin::Unclear
    }

    /// Whoever lives and comes from there, or is Postgres's from outside by its mark; the supervisor never.
    pub(super) fn choose(&self, roots: Roots, mark: Option<Mark>, origins: &[Origin]) -> Vec<(i32, Process)> {
        let mut chosen: Vec<_> = self
            .0
            .iter()
            .filter(|(pid, process)| **pid != roots.supervisor && !process.ended)
            .filter(|(pid, _)| match self.origin(**pid, roots) {
                Origin::Outside => mark.is_some_and(|mark| mark.fits(**pid)),
                origin => origins.contains(&origin),
            })
            .map(|(pid, process)| (*pid, *process))
            .collect();
        // First whoever would start others.
        chosen.sort_by_key(|(pid, _)| Some(*pid) != roots.postmaster && Some(*pid) != roots.agent);
        chosen
    }
}

/// SIGKILL to this very process. One that has ended already, or whose number is another's by now, is left alone.
pub(super) fn kill(pid: i32, process: Process) -> Result<(), Errno> {
    let Some(number) = Pid::from_raw(pid) else { return Ok(()) };
    let killed = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(pidfd) => {
            if read(pid).is_none_or(|now| now.started != process.started) {
                return Ok(());
            }
            pidfd_send_signal(pidfd, Signal::KILL)
        }
        Err(Errno::NOSYS | Errno::PERM) => kill_process(number, Signal::KILL),
        Err(error) => Err(error),
    };
    match killed {
        Err(Errno::SRCH) => Ok(()),
        other => other,
    }
}

fn read(pid: i32) -> Option<Process> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in parentheses may hold anything, parentheses too.
fn parse(stat: &str) -> Option<Process> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let ended = matches!(fields.next()?, "Z" | "X" | "x");
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process { parent, started, ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(parent: i32) -> Process {
        Process { parent, started: 1, ended: false }
    }

    #[test]
    fn a_name_cannot_forge_fields() {
        let stat = "42 (a) S 1 (x) R 7 42 42 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 1 0 98765 1000 2 3";
        assert_eq!(parse(stat), Some(Process { parent: 7, started: 98765, ended: false }));
        assert_eq!(parse("42 (x"), None);
    }

    #[test]
    fn this_process_is_listed_as_it_is() {
        let all = Processes::list().unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let parent = i32::try_from(std::os::unix::process::parent_id()).unwrap();
        assert_eq!(all.0[&me].parent, parent);
    }

    /// §5: backends (children of the postmaster, whatever their session) and orphans; neither the agent's tools nor
    /// strangers nor the supervisor.
    #[test]
    fn ancestry_tells_what_is_postgres() {
        let tree = [
            (1, 0), // supervisor
            (2, 1), // agent
            (3, 2), // its tool
            (4, 1), // postmaster
            (5, 4), // backend
            (6, 5), // archive command
            (7, 1), // orphan
            (8, 7), // its child
            (9, 0), // kubectl exec
            (10, 99),
        ];
        let all = Processes(tree.into_iter().map(|(pid, parent)| (pid, process(parent))).collect());
        let roots = Roots { supervisor: 1, agent: Some(2), postmaster: Some(4) };
        let pids = |origins: &[Origin]| -> Vec<i32> {
            all.choose(roots, None, origins).into_iter().map(|(pid, _)| pid).collect()
        };
        assert_eq!(pids(&[Origin::Postmaster, Origin::Orphan]), [4, 5, 6, 7, 8]);
        assert_eq!(pids(&[Origin::Agent]), [2, 3]);
        assert_eq!(pids(&[Origin::Unclear]), [10]);
        assert_eq!(pids(&[Origin::Agent, Origin::Orphan, Origin::Postmaster]), [2, 4, 3, 5, 6, 7, 8]);
    }
}
