//! The log of one writer or reader: a line of JSON per attempt, flushed before the next attempt starts.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// The attempt's number, from 1.
    pub(crate) n: i64,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// When it began, in microseconds since 1970.
    pub(crate) began: u64,
    /// When its outcome was known.
    pub(crate) ended: u64,
    /// The server that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<IpAddr>,
    /// For a reader: whether the server was in recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) in_recovery: Option<bool>,
    /// The SQLSTATE of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    /// A failure in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
}

/// What a journal is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The writer's name, as in its rows.
    pub(crate) writer: String,
    /// How it connects.
    pub(crate) mode: Mode,
    /// Where.
    pub(crate) host: String,
    /// The table.
    pub(crate) table: String,
}

/// How a writer or a reader connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// A new connection for each row.
    Fresh,
    /// One connection, as long as it lasts.
    Kept,
    /// A reader with a new connection for each query.
    Read,
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
    file: File,
    attempts: Vec<Attempt>,
    ended: Option<u64>,
}

impl Journal {
    /// Begins a new log in this directory.
    pub(crate) fn create(directory: &Path, identity: Identity) -> anyhow::Result<Self> {
        let path = directory.join(format!("{}.jsonl", identity.writer));
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))?;
        writeln!(file, "{}", serde_json::to_string(&identity)?)?;
        Ok(Self { identity, path, state: Mutex::new(State { file, attempts: Vec::new(), ended: None }) })
    }

    /// Reads a finished log.
    pub(crate) fn read(path: &Path) -> anyhow::Result<(Identity, Vec<Attempt>)> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut lines = BufReader::new(file).lines();
        let head = lines.next().context("the log is empty")??;
        let identity = serde_json::from_str(&head).context("read the log's first line")?;
        let attempts = lines
            .map(|line| serde_json::from_str(&line?).context("read a line of the log"))
            .collect::<anyhow::Result<_>>()?;
        Ok((identity, attempts))
    }

    /// Adds an attempt. The line is with the kernel before this returns.
    pub(crate) fn add(&self, attempt: Attempt) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(&attempt)?;
        line.push(b'\n');
        let mut state = self.state.lock().map_err(|_| anyhow::anyhow!("the log is poisoned"))?;
        state.file.write_all(&line).with_context(|| format!("write {}", self.path.display()))?;
        state.attempts.push(attempt);
        Ok(())
    }

    /// Says that there will be no more attempts.
    pub(crate) fn finish(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.ended.get_or_insert(crate::clock::now());
        }
    }

    /// All attempts so far and when they ended, if they did.
    pub(crate) fn attempts(&self) -> (Vec<Attempt>, Option<u64>) {
        self.state.lock().map(|state| (state.attempts.clone(), state.ended)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_was_added() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity {
            writer: "fresh_1".to_owned(),
            mode: Mode::Fresh,
            host: "h".to_owned(),
            table: "t".to_owned(),
        };
        let journal = Journal::create(directory.path(), identity.clone()).unwrap();
        let attempt = Attempt {
            n: 1,
            outcome: Outcome::Unknown,
            began: 1,
            ended: 2,
            server: None,
            in_recovery: None,
            code: Some("57P01".to_owned()),
            text: None,
        };
        journal.add(attempt.clone()).unwrap();
        assert_eq!(Journal::read(&journal.path).unwrap(), (identity, vec![attempt]));
    }
}
