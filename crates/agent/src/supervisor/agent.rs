//! The agent as a child: started, listened to, judged by its heartbeat, paced when it ends (K8).

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ha::{Boot, Instant};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

use super::logs::Log;
use super::pace::Pace;
use crate::clock;
use crate::control::{MAX_PACKET, SILENCE, ToAgent, ToSupervisor};

/// The variable that tells the agent its supervisor's boot.
pub const BOOT_VARIABLE: &str = "MATRIARCH_BOOT";

/// Silence that ends an agent while there is no Postgres to protect: starting may be slow on a busy node.
const IDLE_SILENCE: Duration = Duration::from_secs(10);
/// Packets taken in one turn.
const MAX_TURN: usize = 64;

/// The agent, living or to be started again.
#[derive(Debug)]
pub(super) struct Agent {
    program: PathBuf,
    boot: Boot,
    life: Option<Life>,
    /// The newest heartbeat of any life, by the clock of when it was sent.
    heard: Instant,
    pace: Pace,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Life {
    pid: i32,
    socket: OwnedFd,
    since: Instant,
    /// It closed its end; it is no longer worth waiting for.
    closed: bool,
}

impl Agent {
    pub(super) fn new(program: Option<PathBuf>, boot: Boot) -> Self {
        Self {
            program: program.unwrap_or_else(|| "/proc/self/exe".into()),
            boot,
            life: None,
            heard: Instant(0),
            pace: Pace::default(),
            buffer: vec![0; MAX_PACKET],
        }
    }

    pub(super) fn pid(&self) -> Option<i32> {
        self.life.as_ref().map(|life| life.pid)
    }

    /// When it may be started; none while it lives.
    pub(super) fn start_at(&self) -> Option<Instant> {
        self.life.is_none().then(|| self.pace.due())
    }

    /// Starts it with the channel as standard input, and tells it what it finds.
    pub(super) fn start(&mut self, log: &Log, hello: &ToAgent) -> io::Result<u32> {
        let started = self.spawn(log);
        if started.is_err() {
            self.pace.ended(Duration::ZERO, clock::now());
        }
        let (pid, socket) = started?;
        self.life = Some(Life { pid: pid.cast_signed(), socket, since: clock::now(), closed: false });
        self.tell(hello)?;
        Ok(pid)
    }

    fn spawn(&self, log: &Log) -> io::Result<(u32, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let child = Command::new(&self.program)
            .arg0("matriarch-agent")
            .arg("run")
            .env(BOOT_VARIABLE, self.boot.to_string())
            .stdin(theirs)
            .stdout(log.stdio()?)
            .stderr(log.stdio()?)
            .process_group(0)
            .spawn()?;
        Ok((child.id(), ours))
    }

    /// It was reaped.
    pub(super) fn ended(&mut self) {
        let now = clock::now();
        let lasted = self.life.take().map_or(Duration::ZERO, |life| now.since(life.since));
        self.pace.ended(lasted, now);
    }

    /// What to wait for.
    pub(super) fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if let Some(life) = self.life.as_ref().filter(|life| !life.closed) {
            fds.push(PollFd::new(&life.socket, PollFlags::IN));
        }
    }

    /// What it said since the last turn, heartbeats already taken.
    pub(super) fn listen(&mut self) -> Vec<Result<ToSupervisor, serde_json::Error>> {
        let mut said = Vec::new();
        let Some(life) = &mut self.life else { return said };
        for _ in 0..MAX_TURN {
            let length = match recv(&life.socket, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    life.closed = true;
                    break;
                }
                Ok((length, _)) => length,
                Err(Errno::INTR) => continue,
                Err(_) => break,
            };
            let packet = self.buffer.get(..length).unwrap_or_default();
            match serde_json::from_slice(packet) {
                // Nobody beats in the future.
                Ok(ToSupervisor::Heartbeat { at, .. }) => self.heard = self.heard.max(at.min(clock::now())),
                other => {
                    if let Ok(ToSupervisor::Start(_)) = other {
                        self.heard = clock::now();
                    }
                    said.push(other);
                }
            }
        }
        said
    }

    /// Tells it something. An agent that does not take it knows less than it believes and must start anew.
    pub(super) fn tell(&self, what: &ToAgent) -> io::Result<()> {
        let Some(life) = &self.life else { return Ok(()) };
        let packet = serde_json::to_vec(what)?;
        match send(&life.socket, &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            // It has ended and will be reaped.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// When silence has lasted too long (§5): two seconds from its last sign of life while there is a Postgres,
    /// whether an agent lives or not.
    pub(super) fn silent_at(&self, postgres: bool) -> Option<Instant> {
        if postgres {
            return Some(self.heard.after(SILENCE));
        }
        self.life.as_ref().map(|life| self.heard.max(life.since).after(IDLE_SILENCE))
    }
}
