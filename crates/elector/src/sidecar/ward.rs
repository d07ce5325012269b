//! A command's warden: a process of its own that ends the command, with all its descendants, before a deadline, even when
//! the sidecar that set the deadline is frozen or dead.
//!
//! The sidecar starts its own program anew as `__ward`, tells the deadline on its standard input, and moves it on by each
//! renewal. The ward is the subreaper of everything the command starts, so that nothing escapes by a session of its own.
//! Single-threaded, without a runtime. It must never let a descendant live past the deadline or the end of its input
//! (`tests/run.rs`).

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use ha::Instant;
use kubernetes::clock::boottime;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, set_child_subreaper,
        set_parent_process_death_signal, waitpid,
    },
};

/// The first argument that makes this program a ward: `__ward GRACE_MS COMMAND…`.
pub const WARD: &str = "__ward";
/// The first argument that makes this program the command, to die with the ward.
const EXEC: &str = "__exec";
/// The first argument that copies this program elsewhere, for images of applications: `__copy TARGET`.
const COPY: &str = "__copy";
/// Between two looks at processes that were killed.
const LOOK: Duration = Duration::from_millis(2);
/// What a shell answers for a command that cannot be started.
const NOT_STARTED: u8 = 127;

/// What the sidecar tells its ward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Everything must have ended by then.
    Until(Instant),
    /// Ask the command to end, and end it by then.
    End(Instant),
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Until(at) => writeln!(f, "until {}", at.0),
            Self::End(at) => writeln!(f, "end {}", at.0),
        }
    }
}

fn word(line: &str) -> Option<Word> {
    let (word, at) = line.trim().split_once(' ')?;
    let at = Instant(at.parse().ok()?);
    match word {
        "until" => Some(Word::Until(at)),
        "end" => Some(Word::End(at)),
        _ => None,
    }
}

/// Runs the ward or the command when the command line says so; `None` when this is the sidecar itself.
pub fn main() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next()?;
    let rest: Vec<_> = arguments.collect();
    if first == EXEC {
        let (program, rest) = rest.split_first()?;
        // Should the ward be killed, so is the command.
        if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
            eprintln!("cannot tie the command to its ward: {error}");
        }
        let error = Command::new(program).args(rest).exec();
        eprintln!("cannot start {}: {error}", program.display());
        return Some(ExitCode::from(NOT_STARTED));
    }
    if first == COPY {
        let target = rest.first()?;
        return Some(match fs::copy("/proc/self/exe", target) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("cannot copy this program to {}: {error}", target.display());
                ExitCode::FAILURE
            }
        });
    }
    if first != WARD {
        return None;
    }
    let (grace, command) = rest.split_first()?;
    let grace =
        grace.to_str().and_then(|grace| grace.parse().ok()).map_or(Duration::ZERO, Duration::from_millis);
    let ended = set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(io::Error::from)
        .and_then(|()| Command::new("/proc/self/exe").arg(EXEC).args(command).stdin(Stdio::null()).spawn())
        .and_then(|child| guard(child, grace));
    Some(match ended {
        Ok(status) => code(status),
        Err(error) => {
            eprintln!("the ward of a command failed: {error}");
            end_all(None);
            ExitCode::FAILURE
        }
    })
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Waits for the command's end or makes it.
fn guard(mut child: Child, grace: Duration) -> io::Result<ExitStatus> {
    let pid =
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no pid"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let mut input = io::stdin().lock();
    let mut heard = Vec::new();
    let mut until: Option<Instant> = None;
    let mut asked = false;
    let mut kill_at: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            end_all(None);
            return Ok(status);
        }
        let now = boottime();
        let last = match (until, kill_at) {
            (Some(until), Some(kill)) => Some(until.min(kill)),
            (until, kill) => until.or(kill),
        };
        if last.is_some_and(|last| now >= last) {
            end_all(Some(&mut child));
            return child.wait();
        }
        // Not renewed for long: asked early enough to end by itself.
        let ask_at = until.map(|until| Instant(until.0.saturating_sub(nanos(grace))));
        if !asked && (kill_at.is_some() || ask_at.is_some_and(|ask| now >= ask)) {
            asked = true;
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::TERM);
        }
        let next = if asked { last } else { ask_at };
        match wait(input_fd(&input), pidfd.as_fd(), next.map(|next| next.since(now)))? {
            Woken::Input => {
                let mut bytes = [0; 256];
                let count = input.read(&mut bytes)?;
                if count == 0 {
                    // The sidecar is gone, and with it whoever could renew.
                    end_all(Some(&mut child));
                    return child.wait();
                }
                heard.extend(bytes.iter().take(count));
                while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = heard.drain(..=end).collect();
                    match std::str::from_utf8(&line).ok().and_then(word) {
                        Some(Word::Until(at)) => until = Some(at),
                        Some(Word::End(at)) => kill_at = Some(at),
                        None => return Err(io::Error::other("a word that no sidecar says")),
                    }
                }
            }
            Woken::Command | Woken::Time => {}
        }
    }
}

fn input_fd<'a>(input: &'a io::StdinLock<'_>) -> BorrowedFd<'a> {
    input.as_fd()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

enum Woken {
    Input,
    Command,
    Time,
}

fn wait(input: BorrowedFd<'_>, command: BorrowedFd<'_>, time: Option<Duration>) -> io::Result<Woken> {
    let mut fds =
        [PollFd::from_borrowed_fd(input, PollFlags::IN), PollFd::from_borrowed_fd(command, PollFlags::IN)];
    let limit = time.and_then(|time| Timespec::try_from(time).ok());
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Woken::Time),
        Err(error) => return Err(error.into()),
    }
    let [input, command] = fds;
    Ok(if !command.revents().is_empty() {
        Woken::Command
    } else if !input.revents().is_empty() {
        Woken::Input
    } else {
        Woken::Time
    })
}

/// SIGKILL to every descendant until there is none: whoever forks meanwhile is found the next time.
fn end_all(mut child: Option<&mut Child>) {
    loop {
        let mut alive = false;
        for (pid, process) in descendants() {
            if process.ended && process.parent == me() {
                let ours = child.as_ref().is_some_and(|child| i64::from(child.id()) == i64::from(pid));
                if !ours && let Some(pid) = Pid::from_raw(pid) {
                    // An orphan that this process inherited.
                    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
                }
            }
            if !process.ended {
                alive = true;
                if let Some(pid) = Pid::from_raw(pid) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
        if let Some(child) = child.as_mut() {
            // Reaped here, so that it is no zombie; its status is kept.
            let _ = child.try_wait();
        }
        if !alive {
            return;
        }
        std::thread::sleep(LOOK);
    }
}

fn me() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(i32::MAX)
}

#[derive(Debug, Clone, Copy)]
struct Process {
    parent: i32,
    ended: bool,
}

/// Everybody who descends from this process.
fn descendants() -> Vec<(i32, Process)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: BTreeMap<i32, Process> = entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name in parentheses may hold anything, parentheses too.
            let (_, fields) = stat.rsplit_once(") ")?;
            let mut fields = fields.split(' ');
            let ended = matches!(fields.next()?, "Z" | "X" | "x");
            Some((pid, Process { parent: fields.next()?.parse().ok()?, ended }))
        })
        .collect();
    let descends = |pid: i32| {
        let mut at = pid;
        // Bounded: a tree is not deeper than there are processes.
        for _ in 0..=all.len() {
            match all.get(&at) {
                Some(process) if process.parent == me() => return true,
                Some(process) if process.parent > 0 => at = process.parent,
                _ => return false,
            }
        }
        false
    };
    all.iter().filter(|(pid, _)| descends(**pid)).map(|(pid, process)| (*pid, *process)).collect()
}

/// Says a word to a ward.
///
/// # Errors
/// The pipe's: the ward has ended.
pub fn say(input: &mut impl Write, word: Word) -> io::Result<()> {
    input.write_all(word.to_string().as_bytes())?;
    input.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for said in [Word::Until(Instant(5)), Word::End(Instant(u64::MAX))] {
            assert_eq!(word(&said.to_string()), Some(said));
        }
        assert_eq!((word("until"), word("until x"), word("go 5")), (None, None, None));
    }

    #[test]
    fn a_child_of_a_child_descends_from_here() {
        let mut child = Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let grandchild = || {
            let all = descendants();
            let parent = i32::try_from(child.id()).unwrap();
            all.iter().any(|(_, process)| process.parent == parent)
        };
        while !grandchild() {
            std::thread::sleep(LOOK);
        }
        let pids: Vec<i32> = descendants().into_iter().map(|(pid, _)| pid).collect();
        assert!(pids.contains(&i32::try_from(child.id()).unwrap()));
        // Other tests of this binary may have children of their own: only these are ended.
        let parent = i32::try_from(child.id()).unwrap();
        for (pid, process) in descendants() {
            if process.parent == parent {
                kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
