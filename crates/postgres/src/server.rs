//! A server as a process: its command line, its signals, what it leaves behind.
//!
//! Decides how PostgreSQL is started and stopped; who starts it is the supervisor's affair. Must never start a
//! directory that a rewind left half done (P22). Proved by `tests/servers/life.rs`.

mod observe;

use std::ffi::OsString;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

use crate::binaries::Binaries;
use crate::command::rewind;
use crate::durable::{self, DurableError};
use crate::layout::Layout;
use crate::process::environment;
use crate::steps::{self, Kind};

pub use observe::{Observation, Primary, Prober, Standby};

/// What the supervisor executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartCommand {
    /// The `postgres` program.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// Why a server must not be started, or could not be signalled.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// There is no data directory.
    #[error("there is no data directory")]
    NoData,
    /// A rewind began on the directory and did not end (P22).
    #[error("a rewind of the data directory did not end")]
    Dirty,
    /// Remains of an earlier life could not be removed, or modes not restored.
    #[error("cannot prepare the data directory")]
    Prepare(#[from] DurableError),
    /// There is no `postmaster.pid`, or it names no process.
    #[error("there is no postmaster.pid that names a process")]
    NoPostmaster,
    /// The signal could not be sent.
    #[error("cannot signal the server")]
    Signal(#[source] std::io::Error),
}

impl StartCommand {
    /// The command for this member's data directory. Everything else is in its configuration files.
    pub fn new(binaries: &Binaries, layout: &Layout) -> Result<Self, ServerError> {
        if !layout.has_data() {
            return Err(ServerError::NoData);
        }
        if rewind::is_dirty(layout) {
            return Err(ServerError::Dirty);
        }
        let program = binaries.program("postgres");
        let args = vec!["-D".into(), layout.data().into()];
        let environment = environment(&program);
        Ok(Self { program, args, environment })
    }

    /// Starts it as a child of this process. For tests; in pods PID 1 does it.
    pub fn spawn(&self) -> std::io::Result<tokio::process::Child> {
        tokio::process::Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdin(std::process::Stdio::null())
            .spawn()
    }
}

/// Removes what an earlier life left: the lock files of postmaster and socket hold process ids that may belong to
/// somebody else by now, and restores modes. Only for a caller that holds the volume's lock and knows that no process
/// of the earlier life is left.
pub fn clear_remains(layout: &Layout) -> Result<(), ServerError> {
    layout.prepare()?;
    durable::remove(&layout.data().join("postmaster.pid"))?;
    let mut lock = layout.socket().into_os_string();
    lock.push(".lock");
    durable::remove(&PathBuf::from(lock))?;
    durable::remove(&layout.socket())?;
    Ok(())
}

/// How a server is asked to stop. Fencing asks nobody: it kills every process (§5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Ends sessions, writes a checkpoint, waits for walsenders.
    Fast,
    /// Ends at once; the next start recovers.
    Immediate,
}

impl StopMode {
    /// The signal to the postmaster.
    pub fn signal(self) -> Signal {
        match self {
            Self::Fast => Signal::INT,
            Self::Immediate => Signal::QUIT,
        }
    }
}

/// The process id in `postmaster.pid`; none when there is no such file or it is unreadable.
pub fn postmaster_pid(layout: &Layout) -> Option<i32> {
    let text = std::fs::read_to_string(layout.data().join("postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 1)
}

/// Asks the running server to stop.
pub fn stop(layout: &Layout, mode: StopMode) -> Result<(), ServerError> {
    let pid = postmaster_pid(layout).ok_or(ServerError::NoPostmaster)?;
    signal(pid, mode.signal()).map_err(ServerError::Signal)
}

/// Signals one process. Gone already is no error.
pub(crate) fn signal(pid: i32, signal: Signal) -> std::io::Result<()> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    match kill_process(pid, signal) {
        Ok(()) => {
            steps::took(Kind::Signal, || format!("{signal:?}"));
            Ok(())
        }
        Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
