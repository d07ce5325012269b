//! The log of one writer or reader: a line of JSON per attempt, with the kernel before the next attempt starts.
//!
//! With the kernel means that it survives this process, however that ends. What must survive the machine as well asks for
//! [`Durability::Each`] or [`Durability::Every`]. A last line without its end is one that was being written, and is left out.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Identity};
use crate::clock::{self, Anchor};

/// When lines are on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// When the kernel sees fit: they survive the process, not the machine.
    Kernel,
    /// Before the next attempt.
    Each,
    /// At most this long after they were written, as long as more are written.
    Every(Duration),
}

/// A finished log.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// What it is about.
    pub(crate) identity: Identity,
    /// Where its times begin.
    pub(crate) anchor: Anchor,
    /// Its attempts, in order.
    pub(crate) attempts: Vec<Attempt>,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(flatten)]
    identity: Identity,
    #[serde(default)]
    clock: Anchor,
}

/// Lines in a file of their own.
pub(crate) struct Lines {
    /// Where they are.
    pub(crate) path: PathBuf,
    file: File,
    durability: Durability,
    synced: Instant,
}

impl Lines {
    /// Begins a new file with this line.
    pub(crate) fn create<H: Serialize>(
        path: PathBuf,
        durability: Durability,
        head: &H,
    ) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))?;
        let mut lines = Self { path, file, durability, synced: Instant::now() };
        lines.add(head)?;
        Ok(lines)
    }

    /// Adds a line. It is with the kernel before this returns.
    pub(crate) fn add<L: Serialize>(&mut self, line: &L) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        self.file.write_all(&line).with_context(|| format!("write {}", self.path.display()))?;
        let due = match self.durability {
            Durability::Kernel => false,
            Durability::Each => true,
            Durability::Every(bound) => self.synced.elapsed() >= bound,
        };
        if due { self.sync() } else { Ok(()) }
    }

    /// Puts everything on stable storage, unless nobody asked for that.
    pub(crate) fn sync(&mut self) -> anyhow::Result<()> {
        if self.durability != Durability::Kernel {
            self.file.sync_data().with_context(|| format!("flush {}", self.path.display()))?;
            self.synced = Instant::now();
        }
        Ok(())
    }

    /// Every complete line of a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<String>> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut reader = BufReader::new(file);
        let mut all = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).with_context(|| format!("read {}", path.display()))?;
            if !line.ends_with('\n') {
                return Ok(all);
            }
            all.push(line);
        }
    }
}

/// A log on disk and in memory.
pub(crate) struct Journal {
    /// What it is about.
    pub(crate) identity: Identity,
    /// Where it is.
    pub(crate) path: PathBuf,
    state: Mutex<State>,
}

struct State {
    lines: Lines,
    attempts: Vec<Attempt>,
    ended: Option<u64>,
}

impl Journal {
    /// Begins a new log in this directory.
    pub(crate) fn create(
        directory: &Path,
        durability: Durability,
        identity: Identity,
    ) -> anyhow::Result<Self> {
        let path = directory.join(format!("{}.jsonl", identity.writer));
        let head = Head { identity: identity.clone(), clock: clock::anchor().clone() };
        let lines = Lines::create(path.clone(), durability, &head)?;
        Ok(Self { identity, path, state: Mutex::new(State { lines, attempts: Vec::new(), ended: None }) })
    }

    /// Reads a finished log.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Log> {
        let lines = Lines::read(path)?;
        let (head, rest) = lines.split_first().with_context(|| format!("{} is empty", path.display()))?;
        let head: Head = serde_json::from_str(head)
            .with_context(|| format!("read the first line of {}", path.display()))?;
        let attempts = rest
            .iter()
            .enumerate()
            .map(|(index, line)| {
                serde_json::from_str(line)
                    .with_context(|| format!("read line {} of {}", index + 2, path.display()))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Log { identity: head.identity, anchor: head.clock, attempts })
    }

    /// Adds an attempt. The line is with the kernel before this returns.
    pub(crate) fn add(&self, attempt: Attempt) -> anyhow::Result<()> {
        let mut state = self.state.lock().map_err(|_| anyhow::anyhow!("the log is poisoned"))?;
        state.lines.add(&attempt)?;
        state.attempts.push(attempt);
        Ok(())
    }

    /// Says that there will be no more attempts.
    pub(crate) fn finish(&self) -> anyhow::Result<()> {
        let mut state = self.state.lock().map_err(|_| anyhow::anyhow!("the log is poisoned"))?;
        state.ended.get_or_insert(clock::now());
        state.lines.sync()
    }

    /// When the last attempt ended, if there will be no more.
    pub(crate) fn ended(&self) -> Option<u64> {
        self.state.lock().ok().and_then(|state| state.ended)
    }

    /// Looks at all attempts so far, without a copy; the writer waits meanwhile.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&[Attempt]) -> T) -> T {
        match self.state.lock() {
            Ok(state) => at(&state.attempts),
            Err(_) => at(&[]),
        }
    }

    /// A copy of all of it so far.
    pub(crate) fn log(&self) -> Log {
        Log {
            identity: self.identity.clone(),
            anchor: clock::anchor().clone(),
            attempts: self.look(<[Attempt]>::to_vec),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::{Mode, Workload};
    use crate::outcome::Failure;

    fn identity() -> Identity {
        Identity {
            writer: "fresh_1".to_owned(),
            mode: Mode::Fresh,
            host: "h".to_owned(),
            table: "t".to_owned(),
            workload: Workload::Transfers,
            size: 8,
        }
    }

    #[test]
    fn reads_back_what_was_added_with_both_times_and_where_they_begin() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::create(directory.path(), Durability::Each, identity()).unwrap();
        let attempt = Attempt::ended_now(1, clock::now(), Err(Failure::TimedOut));
        assert!(attempt.wall > 0 && attempt.ended >= attempt.began);
        journal.add(attempt.clone()).unwrap();
        journal.finish().unwrap();
        let log = Journal::read(&journal.path).unwrap();
        assert_eq!((log.identity, log.attempts), (identity(), vec![attempt]));
        assert_eq!(&log.anchor, clock::anchor());
    }

    #[test]
    fn a_line_that_was_being_written_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let journal =
            Journal::create(directory.path(), Durability::Every(Duration::from_secs(1)), identity()).unwrap();
        for n in 1..=2 {
            journal.add(Attempt::ended_now(n, 0, Err(Failure::TimedOut))).unwrap();
        }
        let text = std::fs::read_to_string(&journal.path).unwrap();
        std::fs::write(&journal.path, &text[..text.len() - 5]).unwrap();
        assert_eq!(Journal::read(&journal.path).unwrap().attempts.len(), 1);
    }

    #[test]
    fn a_log_of_before_is_still_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("old.jsonl");
        let text = "{\"writer\":\"w\",\"mode\":\"kept\",\"host\":\"h\",\"table\":\"t\"}\n\
                    {\"n\":1,\"outcome\":\"ok\",\"began\":1,\"ended\":2,\"server\":\"10.0.0.1\"}\n";
        std::fs::write(&path, text).unwrap();
        let log = Journal::read(&path).unwrap();
        assert_eq!((log.identity.workload, log.attempts[0].wall), (Workload::Rows, 0));
    }
}
