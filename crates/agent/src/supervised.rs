//! The agent's end of the control channel: Postgres as PID 1 shows it.
//!
//! It decides nothing. It must never say that nothing is left before the supervisor said so, and never feed the
//! heartbeat on behalf of a driver that stands still ([`Progress`]). The test is `tests/supervisor.rs`.

mod link;
mod progress;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ha::Boot;
use postgres::steps::{self, Kind};
use tokio::sync::watch;

pub use crate::control::{Exit, PostmasterSignal, StartCommand};
use crate::control::{ToAgent, ToSupervisor};
pub use link::LinkError;
pub use progress::{Progress, STALL};

/// How long the supervisor may take to start a process.
const START_BOUND: Duration = Duration::from_secs(10);

/// What the supervisor last said of Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostmasterState {
    /// No process of Postgres is there.
    Gone {
        /// How the last postmaster of this supervisor ended.
        last: Option<Exit>,
    },
    /// A postmaster runs.
    Running {
        /// Its process id.
        pid: u32,
    },
    /// The postmaster is gone or being killed, other processes of it may be left (P7).
    Ending {
        /// How the postmaster ended, when it did.
        last: Option<Exit>,
    },
}

impl PostmasterState {
    /// Whether no process of Postgres is there.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }

    /// The postmaster.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Running { pid } => Some(*pid),
            _ => None,
        }
    }
}

/// Postgres could not be started or stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SupervisedError {
    /// The supervisor did not start it: something of Postgres is still there, the lock is another's, no such file.
    #[error("the supervisor refuses to start Postgres: {why}")]
    Refused {
        /// In its words.
        why: String,
    },
    /// The supervisor did not answer in time.
    #[error("the supervisor does not answer within {bound:?}")]
    Silent {
        /// The bound.
        bound: Duration,
    },
    /// The control channel is closed: PID 1 is gone, and this process follows.
    #[error("the supervisor is gone")]
    SupervisorGone,
}

/// How a stop came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// There was nothing to stop.
    NotRunning,
    /// The postmaster ended by itself; status 0 is a clean shutdown.
    Ended(Exit),
    /// The bound passed: every process was killed.
    Killed,
}

/// Postgres under this pod's supervisor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Postmaster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    boot: Boot,
    wishes: link::Wishes,
    state: watch::Receiver<PostmasterState>,
    refused: watch::Receiver<(u64, String)>,
    terminating: watch::Receiver<bool>,
    lock: watch::Receiver<bool>,
    progress: Progress,
    killed: watch::Receiver<u64>,
    kills: AtomicU64,
    starting: tokio::sync::Mutex<()>,
}

impl Postmaster {
    /// Takes the control channel from standard input, waits for the supervisor's first words (at most 5 s) and
    /// starts the heartbeat, which beats as long as `progress` is touched.
    pub async fn connect(progress: Progress) -> Result<Self, LinkError> {
        Self::over(link::from_standard_input()?, progress).await
    }

    /// As [`Self::connect`], over this end of a `SOCK_SEQPACKET` pair.
    pub async fn over(socket: std::os::fd::OwnedFd, progress: Progress) -> Result<Self, LinkError> {
        let (mut link, hello) = link::Link::open(socket).await?;
        let ToAgent::Hello { boot, holds_lock, postmaster, ending, terminating } = hello else {
            return Err(LinkError::NoHello);
        };
        let state = match postmaster {
            Some(pid) => PostmasterState::Running { pid },
            None if ending => PostmasterState::Ending { last: None },
            None => PostmasterState::Gone { last: None },
        };
        let wishes = link.wishes();
        let (tell_state, state) = watch::channel(state);
        let (tell_refused, refused) = watch::channel((0, String::new()));
        let (tell_terminating, terminating) = watch::channel(terminating);
        let (tell_lock, lock) = watch::channel(holds_lock);
        let (tell_killed, killed) = watch::channel(0);
        let told = link::Told {
            state: tell_state,
            refused: tell_refused,
            terminating: tell_terminating,
            lock: tell_lock,
            killed: tell_killed,
        };
        let beat = progress.clone();
        tokio::spawn(async move { link.serve(told, beat).await });
        let starting = tokio::sync::Mutex::new(());
        let kills = AtomicU64::new(0);
        let inner =
            Inner { boot, wishes, state, refused, terminating, lock, progress, killed, kills, starting };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts Postgres. Refused while any process of it is left.
    ///
    /// # Errors
    /// [`SupervisedError`]; after `Silent` the state tells whether it started later.
    pub async fn start(&self, command: StartCommand) -> Result<u32, SupervisedError> {
        let _one_at_a_time = self.inner.starting.lock().await;
        let mut refused = self.inner.refused.clone();
        refused.mark_unchanged();
        let mut state = self.state();
        state.mark_unchanged();
        if !self.now().is_gone() {
            return Err(SupervisedError::Refused { why: "it still runs".to_owned() });
        }
        self.wish(&ToSupervisor::Start(command))?;
        let answer = async {
            tokio::select! {
                changed = refused.changed() => {
                    changed.map_err(|_| SupervisedError::SupervisorGone)?;
                    let why = refused.borrow().1.clone();
                    Err(SupervisedError::Refused { why })
                }
                running = state.wait_for(|state| state.pid().is_some()) => {
                    let state = *running.map_err(|_| SupervisedError::SupervisorGone)?;
                    state.pid().ok_or(SupervisedError::SupervisorGone)
                }
            }
        };
        tokio::time::timeout(START_BOUND, answer)
            .await
            .unwrap_or(Err(SupervisedError::Silent { bound: START_BOUND }))
    }

    /// SIGKILL to every process of Postgres; resolves when none is left. The only way to fence (§5).
    /// It has no bound of its own: a process in uninterruptible sleep cannot be killed, and must be waited for.
    pub async fn kill_all(&self) -> Result<(), SupervisedError> {
        let nonce = self.inner.kills.fetch_add(1, Ordering::Relaxed) + 1;
        self.wish(&ToSupervisor::Kill { nonce })?;
        let mut killed = self.inner.killed.clone();
        killed.wait_for(|answered| *answered >= nonce).await.map_err(|_| SupervisedError::SupervisorGone)?;
        Ok(())
    }

    /// Fast shutdown; past `bound` every process is killed.
    pub async fn stop_fast(&self, bound: Duration) -> Result<Stopped, SupervisedError> {
        if self.now().is_gone() {
            return Ok(Stopped::NotRunning);
        }
        self.signal(PostmasterSignal::Fast)?;
        if let Ok(gone) = tokio::time::timeout(bound, self.gone()).await {
            return Ok(gone?.map_or(Stopped::Killed, Stopped::Ended));
        }
        self.kill_all().await?;
        Ok(Stopped::Killed)
    }

    /// Signals the postmaster; nothing happens when there is none.
    pub fn signal(&self, signal: PostmasterSignal) -> Result<(), SupervisedError> {
        self.wish(&ToSupervisor::Signal(signal))
    }

    /// Makes Postgres read its configuration again.
    pub fn reload(&self) -> Result<(), SupervisedError> {
        self.signal(PostmasterSignal::Reload)
    }

    /// Says that the hand-over is done: the supervisor kills what is left and the container ends. This process may end.
    pub fn finished(&self) -> Result<(), SupervisedError> {
        self.wish(&ToSupervisor::Finished)
    }

    /// What the supervisor last said.
    pub fn now(&self) -> PostmasterState {
        *self.inner.state.borrow()
    }

    /// To be told of changes.
    pub fn state(&self) -> watch::Receiver<PostmasterState> {
        self.inner.state.clone()
    }

    /// Becomes true when the pod is asked to end.
    pub fn terminating(&self) -> watch::Receiver<bool> {
        self.inner.terminating.clone()
    }

    /// Random per start of the supervisor (K3).
    pub fn boot(&self) -> Boot {
        self.inner.boot
    }

    /// Whether the supervisor holds the volume's lock.
    pub fn holds_lock(&self) -> bool {
        *self.inner.lock.borrow()
    }

    /// What feeds the heartbeat.
    pub fn progress(&self) -> &Progress {
        &self.inner.progress
    }

    /// Resolves when the supervisor is gone; this process should end then.
    pub async fn supervisor_gone(&self) {
        let mut state = self.state();
        while state.changed().await.is_ok() {}
    }

    async fn gone(&self) -> Result<Option<Exit>, SupervisedError> {
        let mut state = self.state();
        let gone =
            state.wait_for(PostmasterState::is_gone).await.map_err(|_| SupervisedError::SupervisorGone)?;
        match *gone {
            PostmasterState::Gone { last } => Ok(last),
            _ => Ok(None),
        }
    }

    /// Sent when this returns: a process that ends right after has said it.
    fn wish(&self, wish: &ToSupervisor) -> Result<(), SupervisedError> {
        self.inner.wishes.send(wish).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => SupervisedError::Silent { bound: Duration::ZERO },
            _ => SupervisedError::SupervisorGone,
        })?;
        steps::took(Kind::Supervisor, || {
            let wish = match wish {
                ToSupervisor::Heartbeat { .. } => "heartbeat",
                ToSupervisor::Start(_) => "start",
                ToSupervisor::Kill { .. } => "kill",
                ToSupervisor::Signal(PostmasterSignal::Reload) => "reload",
                ToSupervisor::Signal(PostmasterSignal::Fast) => "fast stop",
                ToSupervisor::Finished => "finished",
            };
            wish.to_owned()
        });
        Ok(())
    }
}
