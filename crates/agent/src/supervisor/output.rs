//! Everything that this container says, written by PID 1 alone, without ever waiting.
//!
//! A container runtime that stops reading must stop neither Postgres (its backends write their log to a pipe) nor the
//! agent (whose heartbeat would fall silent) nor PID 1. What finds no room is dropped, and the number of lines is said.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::clock;

/// Bytes that wait for the reader at most.
const BACKLOG: usize = 1 << 20;
/// Writes of this size to a pipe that is ready never wait (`PIPE_BUF`).
const CHUNK: usize = 4096;
/// For the last words.
const FLUSH: Duration = Duration::from_millis(500);

/// How grave it is; the words of the agent's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// Standard output, with a bounded backlog.
#[derive(Debug)]
pub(super) struct Output {
    to: OwnedFd,
    backlog: VecDeque<u8>,
    dropped: u64,
}

impl Output {
    pub(super) fn to_stdout() -> io::Result<Self> {
        let stdout = io::stdout();
        // A description of our own can be non-blocking without making it so for whoever else holds the pipe.
        let own = rustix::fs::fstat(&stdout)
            .ok()
            .filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo && !stdout.is_terminal())
            .and_then(|_| {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                rustix::fs::open("/proc/self/fd/1", flags, Mode::empty()).ok()
            });
        let to = match own {
            Some(own) => own,
            None => stdout.as_fd().try_clone_to_owned()?,
        };
        Ok(Self { to, backlog: VecDeque::new(), dropped: 0 })
    }

    /// The supervisor's own words.
    pub(super) fn say(&mut self, level: Level, message: &str, fields: Value) {
        let mut line = json!({
            "timestamp": timestamp(jiff::Timestamp::now()),
            "level": level.word(),
            "logger": "supervisor",
            "message": message,
        });
        if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
            line.extend(fields);
        }
        self.line(line.to_string().as_bytes());
    }

    /// One line, without its end.
    pub(super) fn line(&mut self, line: &[u8]) {
        if self.backlog.len() + line.len() >= BACKLOG {
            self.dropped += 1;
            return;
        }
        if self.dropped > 0 && self.backlog.len() < BACKLOG / 2 {
            let dropped = std::mem::take(&mut self.dropped);
            self.say(
                Level::Warn,
                "lines were dropped: nobody read them in time",
                json!({ "lines": dropped }),
            );
        }
        self.backlog.extend(line);
        self.backlog.push_back(b'\n');
    }

    /// What to wait for.
    pub(super) fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if !self.backlog.is_empty() {
            fds.push(PollFd::new(&self.to, PollFlags::OUT));
        }
    }

    /// Writes as much as fits now.
    pub(super) fn turn(&mut self) {
        while !self.backlog.is_empty() {
            let mut fds = [PollFd::new(&self.to, PollFlags::OUT)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            if !matches!(poll(&mut fds, Some(&now)), Ok(1)) {
                return;
            }
            let front = self.backlog.as_slices().0;
            let chunk = front.get(..front.len().min(CHUNK)).unwrap_or(front);
            match rustix::io::write(&self.to, chunk) {
                Ok(written) => drop(self.backlog.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The reader is gone for good.
                Err(_) => {
                    self.backlog.clear();
                    return;
                }
            }
        }
    }

    /// Gives the reader a last moment.
    pub(super) fn finish(&mut self) {
        let until = clock::now().after(FLUSH);
        loop {
            self.turn();
            if self.backlog.is_empty() || clock::now() >= until {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// As the agent's own log prints it.
pub(super) fn timestamp(at: jiff::Timestamp) -> String {
    format!("{at:.6}")
}
