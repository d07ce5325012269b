//! The processes of Postgres: started on demand, all of them killed on demand, and never believed gone too early.
//!
//! A postmaster that ends takes its backends with it only as soon as they notice (P7): whatever it leaves is killed.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use ha::Instant;
use rustix::process::{Pid, Signal, kill_process};

use super::logs::Log;
use super::processes::{self, Mark, Origin, Processes, Roots};
use crate::clock;
use crate::control::{PostmasterSignal, StartCommand};

/// Between two looks while something is to be killed.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Looks in a row that must find nothing: a process can be born behind the first one's back.
const CLEAN_LOOKS: u32 = 2;

/// Postgres's processes as a whole.
#[derive(Debug)]
pub(super) enum Postgres {
    /// None.
    Gone,
    /// A postmaster, and what it started.
    Running {
        /// The postmaster.
        pid: i32,
    },
    /// All are being killed.
    Ending(Ending),
}

/// The killing of everything.
#[derive(Debug)]
pub(super) struct Ending {
    /// The postmaster until it is reaped.
    postmaster: Option<i32>,
    /// The agent and its tools go too.
    with_agent: bool,
    since: Instant,
    look_at: Instant,
    clean: u32,
    killed: usize,
}

/// How a killing goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// It was not time to look.
    NotDue,
    /// Some are left.
    Left(usize),
    /// Nothing is left.
    AllGone {
        /// How long it took.
        took: Duration,
        /// Signals sent.
        killed: usize,
    },
}

impl Postgres {
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone)
    }

    /// The postmaster, as long as it was not reaped.
    pub(super) fn pid(&self) -> Option<i32> {
        match self {
            Self::Gone => None,
            Self::Running { pid } => Some(*pid),
            Self::Ending(ending) => ending.postmaster,
        }
    }

    /// An agent started now would be killed at once.
    pub(super) fn ends_agent(&self) -> bool {
        matches!(self, Self::Ending(ending) if ending.with_agent)
    }

    /// When to look again.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Ending(ending) => Some(ending.look_at),
            _ => None,
        }
    }

    /// Starts a postmaster.
    pub(super) fn start(&mut self, command: &StartCommand, log: &Log) -> io::Result<u32> {
        let child = Command::new(&command.program)
            .args(&command.args)
            .env_clear()
            .envs(&command.env)
            .current_dir(&command.cwd)
            .stdin(Stdio::null())
            .stdout(log.stdio()?)
            .stderr(log.stdio()?)
            .process_group(0)
            .spawn()?;
        let pid = child.id();
        *self = Self::Running { pid: pid.cast_signed() };
        Ok(pid)
    }

    /// Begins to kill everything; `with_agent` the agent and its tools too. Once begun it only widens.
    pub(super) fn end(&mut self, with_agent: bool) {
        let now = clock::now();
        match self {
            Self::Ending(ending) => {
                if with_agent && !ending.with_agent {
                    ending.with_agent = true;
                    ending.look_at = now;
                    ending.clean = 0;
                }
            }
            Self::Gone | Self::Running { .. } => {
                let postmaster = self.pid();
                *self = Self::Ending(Ending {
                    postmaster,
                    with_agent,
                    since: now,
                    look_at: now,
                    clean: 0,
                    killed: 0,
                });
            }
        }
    }

    /// The postmaster was reaped: what it left goes too.
    pub(super) fn postmaster_ended(&mut self) {
        self.end(false);
        if let Self::Ending(ending) = self {
            ending.postmaster = None;
        }
    }

    /// Looks and kills, when it is time.
    pub(super) fn look(
        &mut self,
        supervisor: i32,
        agent: Option<i32>,
        mark: Option<Mark>,
    ) -> io::Result<Looked> {
        let Self::Ending(ending) = self else { return Ok(Looked::NotDue) };
        let now = clock::now();
        if now < ending.look_at {
            return Ok(Looked::NotDue);
        }
        ending.look_at = now.after(LOOK_AGAIN);
        let roots = Roots { supervisor, agent, postmaster: ending.postmaster };
        let mut origins = vec![Origin::Postmaster, Origin::Orphan];
        if ending.with_agent {
            origins.push(Origin::Agent);
        }
        let all = Processes::list()?;
        let targets = all.choose(roots, mark, &origins);
        let unclear = all.choose(roots, None, &[Origin::Unclear]).len();
        ending.killed += kill_each(&targets)?;
        let left = targets.len() + unclear + usize::from(ending.postmaster.is_some());
        if left > 0 {
            ending.clean = 0;
            return Ok(Looked::Left(left));
        }
        ending.clean += 1;
        if ending.clean < CLEAN_LOOKS {
            return Ok(Looked::NotDue);
        }
        let (took, killed) = (now.since(ending.since), ending.killed);
        *self = Self::Gone;
        Ok(Looked::AllGone { took, killed })
    }

    /// Signals the postmaster alone.
    pub(super) fn signal(&self, signal: PostmasterSignal) -> io::Result<()> {
        let Self::Running { pid } = self else { return Ok(()) };
        let Some(pid) = Pid::from_raw(*pid) else { return Ok(()) };
        let signal = match signal {
            PostmasterSignal::Reload => Signal::HUP,
            PostmasterSignal::Fast => Signal::INT,
        };
        // It is this process's child and not reaped yet, so the number is nobody else's.
        Ok(kill_process(pid, signal)?)
    }
}

/// Kills what a dead agent's tools left (a clone or rewind half done), but nothing of a running postmaster.
/// Returns whether any was there.
pub(super) fn sweep_orphans(supervisor: i32, postmaster: Option<i32>) -> io::Result<bool> {
    let roots = Roots { supervisor, agent: None, postmaster };
    let orphans = Processes::list()?.choose(roots, None, &[Origin::Orphan]);
    kill_each(&orphans)?;
    Ok(!orphans.is_empty())
}

fn kill_each(targets: &[(i32, processes::Process)]) -> io::Result<usize> {
    let mut failed = None;
    for (pid, process) in targets {
        if let Err(error) = processes::kill(*pid, *process) {
            failed = Some(error);
        }
    }
    failed.map_or(Ok(targets.len()), |error| Err(error.into()))
}
