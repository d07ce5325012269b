//! One repetition as a line of JSON, and the file of lines.
//!
//! A line is appended whole and flushed, and never changed again. A line that cannot be read is told and left out: an older
//! form, or one that was cut off when the machine died; what follows it is still read.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::isolated::Isolated;
use super::machine::Machine;
use super::timeline::Timeline;

/// What a line belongs to: these are compared, everything else is measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    /// Which system.
    pub(crate) peer: String,
    /// The change of the manifest, as JSON.
    pub(crate) settings: String,
    /// Whether an unrelated slice changed all the time.
    pub(crate) slice_changes: bool,
}

/// One repetition. Times in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    /// What was broken.
    pub(crate) fault: String,
    /// Which system it was.
    #[serde(default = "ours")]
    pub(crate) peer: String,
    /// The change of the manifest.
    pub(crate) settings: Value,
    /// Whether an unrelated slice changed every 500 ms (K4).
    #[serde(default)]
    pub(crate) slice_changes: bool,
    /// When.
    pub(crate) at: String,
    /// The master before.
    pub(crate) from: String,
    /// The master afterwards.
    pub(crate) to: String,
    /// How long it took to make the fault: an upper bound of what the epoch's time has of the way to it.
    #[serde(default)]
    pub(crate) made_ms: u64,
    /// From before the fault was made to a later epoch that is open, as an observer of the record saw it; none where there
    /// was none.
    #[serde(default)]
    pub(crate) epoch_ms: Option<u64>,
    /// The longest time without an acknowledgement from the fault until writes went on, by kind of connection. Of a fault
    /// that must change nothing: for as long as it lasted.
    pub(crate) gap_ms: BTreeMap<String, u64>,
    /// The same from then until everything agreed again.
    #[serde(default)]
    pub(crate) healing_gap_ms: BTreeMap<String, u64>,
    /// From mending until everything agreed again.
    #[serde(default)]
    pub(crate) healed_ms: Option<u64>,
    /// Writes of the repetition that were acknowledged, found or not.
    pub(crate) acknowledged: u64,
    /// Attempts whose outcome the clients do not know.
    pub(crate) doubtful: u64,
    /// Acknowledged rows that were not found: some of `acknowledged`, and a failure.
    pub(crate) lost: u64,
    /// Of a fault that cuts the master off: what a session on its side was told. Its rows are among those above, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) isolated: Option<Isolated>,
    /// What attempts failed with, by outcome and SQLSTATE.
    #[serde(default)]
    pub(crate) failures: BTreeMap<String, u64>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    /// On what.
    #[serde(default)]
    pub(crate) machine: Machine,
    /// Version of PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) postgres: Option<String>,
    /// For the picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeline: Option<Timeline>,
}

impl Line {
    /// What it belongs to.
    pub(crate) fn series(&self) -> Series {
        Series {
            peer: self.peer.clone(),
            settings: self.settings.to_string(),
            slice_changes: self.slice_changes,
        }
    }

    /// The longest gap of all kinds of connections.
    pub(crate) fn longest_gap(&self) -> Option<u64> {
        self.gap_ms.values().max().copied()
    }
}

fn ours() -> String {
    "matriarch".to_owned()
}

/// What is in a file.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Lines {
    /// Every line that could be read.
    pub(crate) lines: Vec<Line>,
    /// Why others could not, with their numbers.
    pub(crate) warnings: Vec<String>,
}

/// Everything in the file; nothing when there is none yet.
///
/// # Errors
/// When it is there and cannot be read: a series that takes it for empty would begin again.
pub(crate) fn read(file: &Path) -> Result<Lines> {
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Lines::default()),
        Err(error) => return Err(error).with_context(|| format!("open {}", file.display())),
    };
    let mut found = Lines::default();
    for (number, line) in BufReader::new(opened).split(b'\n').enumerate() {
        let line = line.with_context(|| format!("read {}", file.display()))?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(line) => found.lines.push(line),
            Err(error) => {
                found.warnings.push(format!("{}: line {}: {error}", file.display(), number + 1));
            }
        }
    }
    Ok(found)
}

/// Opens the file for lines to come; one that was cut off is ended first, so that it spoils no other.
pub(crate) fn append_to(file: &Path) -> Result<File> {
    let open = || {
        let mut opened = OpenOptions::new().create(true).read(true).append(true).open(file)?;
        if opened.metadata()?.len() > 0 {
            opened.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            opened.read_exact(&mut last)?;
            if last != *b"\n" {
                opened.write_all(b"\n")?;
            }
        }
        Ok::<_, std::io::Error>(opened)
    };
    open().with_context(|| format!("open {} for lines to come", file.display()))
}

/// Adds a line; it is on the disk before this returns.
pub(crate) fn append(out: &mut File, line: &Line) -> Result<()> {
    let mut text = serde_json::to_vec(line).context("write a line")?;
    text.push(b'\n');
    out.write_all(&text).context("append a line")?;
    out.sync_data().context("flush a line")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fault: &str) -> Line {
        Line { fault: fault.to_owned(), peer: ours(), settings: serde_json::json!({}), ..Line::default() }
    }

    #[test]
    fn a_missing_file_is_empty_and_one_that_cannot_be_opened_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(&directory.path().join("none.jsonl")).unwrap(), Lines::default());
        // Not found is one thing, a file in the place of a directory another.
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert!(read(&directory.path().join("file/lines.jsonl")).is_err());
        assert!(read(directory.path()).is_err());
    }

    #[test]
    fn a_line_that_was_cut_off_is_told_and_spoils_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lines.jsonl");
        append(&mut append_to(&file).unwrap(), &line("one")).unwrap();
        let mut text = std::fs::read(&file).unwrap();
        text.extend(b"{\"fault\":\"cut o\xff");
        std::fs::write(&file, text).unwrap();
        append(&mut append_to(&file).unwrap(), &line("two")).unwrap();
        let found = read(&file).unwrap();
        assert_eq!(found.lines, [line("one"), line("two")]);
        assert_eq!(found.warnings.len(), 1);
        assert!(found.warnings[0].contains("line 2: "), "{:?}", found.warnings);
    }

    #[test]
    fn a_line_of_the_first_form_is_read() {
        let text = "{\"fault\":\"delete\",\"settings\":{},\"at\":\"-\",\"from\":\"pg-0\",\"to\":\"pg-1\",\"epochMs\":7,\
                    \"gapMs\":{\"kept\":9},\"acknowledged\":1,\"doubtful\":0,\"lost\":0}";
        let line: Line = serde_json::from_str(text).unwrap();
        assert_eq!((line.peer.as_str(), line.epoch_ms, line.longest_gap()), ("matriarch", Some(7), Some(9)));
        assert!(!line.series().slice_changes);
    }
}
