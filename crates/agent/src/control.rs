//! What supervisor and agent say to each other: one JSON object per packet of a `SOCK_SEQPACKET` pair.
//!
//! The agent's end is its standard input, so nothing has to be inherited by number. Facts flow down
//! ([`ToAgent`]), wishes flow up ([`ToSupervisor`]); the supervisor alone knows what lives, and an agent that
//! was restarted is told in the first packet what it finds ([`ToAgent::Hello`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ha::{Boot, Instant};
use serde::{Deserialize, Serialize};

/// How often the agent says that it is well.
pub const BEAT: Duration = Duration::from_millis(200);

/// Silence of the agent after which every process of Postgres is killed (§5).
pub const SILENCE: Duration = Duration::from_secs(2);

/// The longest packet either side sends or takes.
pub const MAX_PACKET: usize = 64 * 1024;

/// How Postgres is to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartCommand {
    /// The absolute path of the `postgres` binary.
    pub program: PathBuf,
    /// Its arguments, without the program.
    pub args: Vec<String>,
    /// Its whole environment; nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// PGDATA: the working directory, as every process of Postgres has it, by which left-overs are recognised.
    pub cwd: PathBuf,
}

/// Signals to the postmaster alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PostmasterSignal {
    /// Read the configuration again (SIGHUP).
    Reload,
    /// Fast shutdown (SIGINT). Never for fencing (§5).
    Fast,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Agent to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "say")]
pub enum ToSupervisor {
    /// The driver has made progress lately. `at` is when it was sent, so that a delayed reader judges fairly.
    Heartbeat {
        /// Counts from 1 in each life of the agent.
        seq: u64,
        /// The sender's boot-time clock, which both share.
        at: Instant,
    },
    /// Start Postgres; answered by `Started` or `Refused`.
    Start(StartCommand),
    /// SIGKILL every process of Postgres; answered by `AllGone`, even when there was none.
    Kill {
        /// Grows; the answer names it, so that an older `AllGone` under way is not taken for it.
        nonce: u64,
    },
    /// Signal the postmaster, if there is one.
    Signal(PostmasterSignal),
    /// The hand-over is done: kill what is left and end the container.
    Finished,
}

/// Supervisor to agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "say")]
pub enum ToAgent {
    /// The first packet of every life of the agent.
    #[serde(rename_all = "camelCase")]
    Hello {
        /// Random per start of the supervisor (K3).
        boot: Boot,
        /// The volume's lock is held.
        holds_lock: bool,
        /// A postmaster from an earlier life of the agent.
        postmaster: Option<u32>,
        /// Processes of Postgres without a postmaster are still being killed.
        ending: bool,
        /// SIGTERM came already.
        terminating: bool,
    },
    /// The volume's lock was obtained later.
    LockHeld,
    /// Postgres runs.
    Started {
        /// The postmaster.
        pid: u32,
    },
    /// It was not started.
    Refused {
        /// Why not.
        why: String,
    },
    /// The postmaster ended; what it left behind is being killed (P7).
    Exited {
        /// The postmaster.
        pid: u32,
        /// How.
        exit: Exit,
    },
    /// No process of Postgres is left.
    AllGone {
        /// The last `Kill` that this answers; 0 for none.
        nonce: u64,
    },
    /// SIGTERM came: hand over, stop, and say `Finished`.
    Terminating,
}
