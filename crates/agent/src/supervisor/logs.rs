//! The log of a child: a pipe that is always read, its lines made one JSON object each.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use postgres::log::LogLine;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::{Value, json};

use super::output::{Level, Output, timestamp};

/// Longer lines are cut into several.
const MAX_LINE: usize = 32 * 1024;
/// What is read in one turn: no log may keep the loop from its other duties.
const MAX_TURN: usize = 256 * 1024;
/// Room for a burst (the usual limit for unprivileged processes).
const PIPE_SIZE: usize = 1 << 20;

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Lines of JSON, passed on as they are.
    Agent,
    /// Lines with the prefix of [`postgres::log::LINE_PREFIX`].
    Postgres,
}

/// Both ends of the pipe: the writing one is kept for the next child, so there is never an end of file.
#[derive(Debug)]
pub(super) struct Log {
    source: Source,
    read: OwnedFd,
    write: OwnedFd,
    partial: Vec<u8>,
    message: Option<Value>,
}

impl Log {
    pub(super) fn new(source: Source) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        // Less room is no reason to stop.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_SIZE);
        Ok(Self { source, read, write, partial: Vec::new(), message: None })
    }

    /// The end for a child's standard output or error.
    pub(super) fn stdio(&self) -> io::Result<Stdio> {
        Ok(self.write.try_clone()?.into())
    }

    /// What to wait for.
    pub(super) fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.read, PollFlags::IN));
    }

    /// Passes on what is there.
    pub(super) fn turn(&mut self, output: &mut Output) {
        let mut chunk = [0; 16 * 1024];
        let mut total = 0;
        while total < MAX_TURN {
            match rustix::io::read(&self.read, &mut chunk) {
                Ok(0) => break,
                Ok(length) => {
                    total += length;
                    self.take(chunk.get(..length).unwrap_or_default(), output);
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        // A message is written at once with all its lines: when the pipe is empty, it is complete.
        if self.partial.is_empty() {
            self.end_message(output);
        }
    }

    fn take(&mut self, bytes: &[u8], output: &mut Output) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.last() == Some(&b'\n') || self.partial.len() >= MAX_LINE {
                let line = std::mem::take(&mut self.partial);
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end_matches(['\n', '\r']);
                match self.source {
                    Source::Agent => agent_line(line, output),
                    Source::Postgres => self.postgres_line(line, output),
                }
            }
        }
    }

    fn postgres_line(&mut self, line: &str, output: &mut Output) {
        if let LogLine::Continuation(more) = postgres::log::parse(line)
            && let Some(Value::String(text)) = self.message.as_mut().and_then(|m| m.get_mut("message"))
            && text.len() < MAX_LINE
        {
            text.push('\n');
            text.push_str(more);
            return;
        }
        self.end_message(output);
        self.message = Some(match postgres::log::parse(line) {
            LogLine::Message { time, pid, backend, sqlstate, severity, text } => json!({
                "timestamp": timestamp(read_time(time).unwrap_or_else(jiff::Timestamp::now)),
                "level": level(severity).word(),
                "logger": "postgres",
                "severity": severity,
                "pid": pid,
                "backend": backend,
                "sqlstate": sqlstate,
                "message": text,
            }),
            LogLine::Continuation(text) | LogLine::Other(text) => json!({
                "timestamp": timestamp(jiff::Timestamp::now()),
                "level": Level::Info.word(),
                "logger": "postgres",
                "message": text,
            }),
        });
    }

    fn end_message(&mut self, output: &mut Output) {
        if let Some(message) = self.message.take() {
            output.line(message.to_string().as_bytes());
        }
    }
}

/// The agent speaks JSON; a panic's words do not.
fn agent_line(line: &str, output: &mut Output) {
    if line.starts_with('{') {
        output.line(line.as_bytes());
    } else if !line.is_empty() {
        let words = json!({
            "timestamp": timestamp(jiff::Timestamp::now()),
            "level": Level::Warn.word(),
            "logger": "agent",
            "message": line,
        });
        output.line(words.to_string().as_bytes());
    }
}

fn level(severity: &str) -> Level {
    match severity {
        "PANIC" | "FATAL" | "ERROR" => Level::Error,
        "WARNING" => Level::Warn,
        debug if debug.starts_with("DEBUG") => Level::Debug,
        _ => Level::Info,
    }
}

/// `%n`: seconds since the epoch, with milliseconds.
fn read_time(text: &str) -> Option<jiff::Timestamp> {
    let (seconds, millis) = text.split_once('.')?;
    let (seconds, millis): (i64, i64) = (seconds.parse().ok()?, millis.parse().ok()?);
    jiff::Timestamp::from_millisecond(seconds.checked_mul(1000)?.checked_add(millis)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_time_is_read() {
        let at = read_time("1700000000.123").unwrap();
        assert_eq!(timestamp(at), "2023-11-14T22:13:20.123000Z");
        assert_eq!(read_time("soon"), None);
    }
}
