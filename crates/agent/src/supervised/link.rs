//! Packets between this process and its supervisor, and the heartbeat.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SendFlags, send};
use tokio::net::UnixDatagram;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::{PostmasterState, Progress};
use crate::clock;
use crate::control::{BEAT, MAX_PACKET, ToAgent, ToSupervisor};

/// How long the supervisor may take for its first words.
const HELLO_BOUND: Duration = Duration::from_secs(5);

/// There is no supervisor to talk to.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Standard input is not a control channel: this mode is not for people.
    #[error("standard input is not the supervisor's control channel")]
    Open(#[source] io::Error),
    /// The channel broke before the first words.
    #[error("the supervisor cannot be read")]
    Read(#[source] io::Error),
    /// A packet makes no sense.
    #[error("the supervisor's words cannot be read")]
    Parse(#[source] serde_json::Error),
    /// Something else came first, or nothing.
    #[error("the supervisor did not introduce itself")]
    NoHello,
}

/// Where what the supervisor says goes.
pub(super) struct Told {
    pub(super) state: watch::Sender<PostmasterState>,
    pub(super) refused: watch::Sender<(u64, String)>,
    pub(super) terminating: watch::Sender<bool>,
    pub(super) lock: watch::Sender<bool>,
    pub(super) killed: watch::Sender<u64>,
}

pub(super) struct Link {
    /// Of type `SOCK_SEQPACKET`: packets like a datagram socket's, and an end when the other side is gone.
    socket: Arc<UnixDatagram>,
    buffer: Vec<u8>,
}

/// Takes the channel from file descriptor 0 and leaves `/dev/null` there, for our own children.
pub(super) fn from_standard_input() -> Result<OwnedFd, LinkError> {
    let take = || {
        let stdin = io::stdin();
        rustix::net::sockopt::socket_type(stdin.as_fd())?;
        let socket = stdin.as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Ok(socket)
    };
    take().map_err(LinkError::Open)
}

impl Link {
    pub(super) async fn open(socket: OwnedFd) -> Result<(Self, ToAgent), LinkError> {
        let socket = std::os::unix::net::UnixDatagram::from(socket);
        socket.set_nonblocking(true).map_err(LinkError::Open)?;
        let socket = UnixDatagram::from_std(socket).map_err(LinkError::Open)?;
        let mut link = Self { socket: Arc::new(socket), buffer: vec![0; MAX_PACKET] };
        let hello =
            tokio::time::timeout(HELLO_BOUND, link.read()).await.map_err(|_| LinkError::NoHello)??;
        Ok((link, hello))
    }

    async fn read(&mut self) -> Result<ToAgent, LinkError> {
        let length = self.socket.recv(&mut self.buffer).await.map_err(LinkError::Read)?;
        if length == 0 {
            return Err(LinkError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_slice(self.buffer.get(..length).unwrap_or_default()).map_err(LinkError::Parse)
    }

    /// Returns when the supervisor is gone.
    pub(super) async fn serve(&mut self, told: Told, progress: Progress) {
        let wishes = self.wishes();
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seq = 0;
        let mut stalled = false;
        loop {
            tokio::select! {
                said = self.read() => match said {
                    Ok(said) => told.hear(said),
                    Err(LinkError::Parse(error)) => {
                        tracing::error!(%error, "the supervisor's words cannot be read");
                    }
                    Err(error) => {
                        tracing::error!(error = telemetry::report(&error), "the supervisor is gone");
                        return;
                    }
                },
                _ = beat.tick() => {
                    let still = progress.stalled();
                    if still != stalled {
                        stalled = still;
                        tracing::error!(stalled, "the driver's progress changed; the heartbeat follows it");
                    }
                    if stalled {
                        continue;
                    }
                    seq += 1;
                    if let Err(error) = wishes.send(&ToSupervisor::Heartbeat { seq, at: clock::now() }) {
                        tracing::error!(%error, "the heartbeat cannot be sent");
                    }
                }
            }
        }
    }

    /// The way up.
    pub(super) fn wishes(&self) -> Wishes {
        Wishes(Arc::clone(&self.socket))
    }
}

/// The way up: packets are sent at once or not at all. The supervisor always reads, so there is always room.
#[derive(Debug, Clone)]
pub(super) struct Wishes(Arc<UnixDatagram>);

impl Wishes {
    pub(super) fn send(&self, wish: &ToSupervisor) -> io::Result<()> {
        let packet = serde_json::to_vec(wish)?;
        if packet.len() > MAX_PACKET {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too long for the supervisor"));
        }
        send(&self.0, &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Told {
    fn hear(&self, said: ToAgent) {
        tracing::debug!(?said, "the supervisor said");
        match said {
            ToAgent::Hello { .. } => tracing::error!("the supervisor introduced itself twice"),
            ToAgent::LockHeld => drop(self.lock.send_replace(true)),
            ToAgent::Started { pid } => drop(self.state.send_replace(PostmasterState::Running { pid })),
            ToAgent::Refused { why } => self.refused.send_modify(|(count, last)| {
                *count += 1;
                *last = why;
            }),
            ToAgent::Exited { exit, .. } => {
                self.state.send_replace(PostmasterState::Ending { last: Some(exit) });
            }
            ToAgent::AllGone { nonce } => {
                self.state.send_modify(|state| {
                    let last = match *state {
                        PostmasterState::Ending { last } | PostmasterState::Gone { last } => last,
                        PostmasterState::Running { .. } => None,
                    };
                    *state = PostmasterState::Gone { last };
                });
                self.killed.send_replace(nonce);
            }
            ToAgent::Terminating => drop(self.terminating.send_replace(true)),
        }
    }
}
