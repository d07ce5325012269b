//! `pg_waldump` as a reader of the local log: is there another valid record, and where does one end?
//!
//! Decides what counts as the end of local WAL (P8: only a reader of the files tells it). Must never take "the program
//! could not run" for "there is no further record". Proved by `tests`, `tests/servers/seal.rs`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ha::{Lsn, Position, Timeline};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::controldata::{ClusterState, ControlData};
use crate::binaries::Binaries;
use crate::process::{Program, ProgramError};
use crate::wal::SegmentSize;

/// How far before a position reading begins: a record that is reached from its predecessor is checked against it, so
/// that the remains of a recycled segment are never taken for a record.
const RUN_UP: u64 = 16 * 1024;

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WalReadError {
    /// The program could not run, was killed, or failed for another reason than the end of the log.
    #[error("cannot read the log")]
    Run(#[from] ProgramError),
    /// The record that should be there is not.
    #[error("there is no shutdown checkpoint at {at}")]
    NoShutdownCheckpoint {
        /// Where the control file says it is.
        at: Lsn,
    },
    /// The control file does not say that a master was stopped cleanly.
    #[error("the server was not shut down cleanly as a master: {0:?}")]
    NotShutDown(ClusterState),
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its first byte.
    pub start: Lsn,
    /// One past its last byte, as replay counts.
    pub end: Lsn,
    /// Resource manager, such as `XLOG`.
    pub manager: String,
    /// What it does, such as `CHECKPOINT_SHUTDOWN …`.
    pub description: String,
}

/// Files that follow each other.
struct Files {
    first: String,
    last: String,
    /// One past the last one's last byte.
    end: Lsn,
}

/// Reads the log files of one data directory.
#[derive(Debug, Clone)]
pub struct WalReader {
    program: PathBuf,
    wal: PathBuf,
    segment: SegmentSize,
}

impl WalReader {
    /// A reader of the log below this data directory.
    pub fn new(binaries: &Binaries, data: &Path, segment: SegmentSize) -> Self {
        Self { program: binaries.program("pg_waldump"), wal: data.join("pg_wal"), segment }
    }

    /// The segment size.
    pub fn segment(&self) -> SegmentSize {
        self.segment
    }

    /// The first valid record that starts at or after `position` on its timeline; none when the log ends there.
    pub async fn record_at_or_after(
        &self,
        position: Position,
        bound: Duration,
    ) -> Result<Option<Record>, WalReadError> {
        let from = Lsn(position.lsn.0.saturating_sub(RUN_UP).max(self.segment.start(position.lsn).0));
        let files = self.files(position.timeline, from).map_err(|source| self.failed(source))?;
        let Some(Files { first, last, end }) = files else {
            return Ok(None);
        };
        // Without its name the first file would be any of the directory, and where that one was made ahead and holds
        // nothing, the program cannot tell the size of segments and gives up.
        let program = Program::new(&self.program)
            .option("--path", &self.wal)
            .option("--start", from.to_string())
            .option("--end", end.to_string())
            .arg(first)
            .arg(last);
        let failed = |source| ProgramError::Run { program: program.name(), source };
        let work = async {
            let mut child =
                program.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
            let (Some(out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
                return Err(failed(std::io::Error::other("no pipes")).into());
            };
            let mut lines = BufReader::new(out).split(b'\n');
            while let Some(line) = lines.next_segment().await.map_err(failed)? {
                let line = String::from_utf8_lossy(&line);
                if let Some(record) = parse_record(&line, self.segment)
                    && record.start >= position.lsn
                {
                    // Killed by drop: whatever follows does not matter.
                    return Ok(Some(record));
                }
            }
            let mut said = String::new();
            err.read_to_string(&mut said).await.map_err(failed)?;
            let status = child.wait().await.map_err(failed)?;
            // It ends with an error wherever the log ends before its files do.
            if !status.success() && !is_end_of_log(&said) {
                let said = said.trim().to_owned();
                return Err(ProgramError::Failed { program: program.name(), status, said }.into());
            }
            Ok(None)
        };
        match tokio::time::timeout(bound, work).await {
            Ok(result) => result,
            Err(_) => {
                Err(ProgramError::Timeout { program: program.name(), bound, said: String::new() }.into())
            }
        }
    }

    fn failed(&self, source: std::io::Error) -> ProgramError {
        ProgramError::Run { program: self.program.display().to_string(), source }
    }

    /// The unbroken row of files that begins with `from`'s; none when there is no such file, or nothing was ever written
    /// to it: a segment is made ahead, full of zeros, and without a header at its beginning it holds no record.
    ///
    /// The program waits five seconds for a file that is not there, which a log that ends with its segment would make
    /// every seal wait.
    fn files(&self, timeline: Timeline, from: Lsn) -> std::io::Result<Option<Files>> {
        let first = self.segment.file_name(timeline, from);
        if !self.has_header(&first)? {
            return Ok(None);
        }
        let (mut last, mut start) = (first.clone(), self.segment.start(from));
        loop {
            start = Lsn(start.0.saturating_add(self.segment.bytes()));
            let next = self.segment.file_name(timeline, start);
            if !self.wal.join(&next).try_exists()? {
                return Ok(Some(Files { first, last, end: start }));
            }
            last = next;
        }
    }

    /// Whether the file is there and begins with anything but zeros: the magic number of a page is never zero.
    fn has_header(&self, name: &str) -> std::io::Result<bool> {
        let mut magic = [0; 2];
        let read = std::fs::File::open(self.wal.join(name))
            .and_then(|file| std::os::unix::fs::FileExt::read_exact_at(&file, &mut magic, 0));
        match read {
            Ok(()) => Ok(magic != [0; 2]),
            // A file that is being made is shorter than a page.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// P23: how far a cleanly stopped master reaches: the *end* of its shutdown checkpoint record, of which the
    /// control file gives the start.
    pub async fn shutdown_end(
        &self,
        control: &ControlData,
        bound: Duration,
    ) -> Result<Position, WalReadError> {
        if control.state != ClusterState::ShutDown {
            return Err(WalReadError::NotShutDown(control.state.clone()));
        }
        let at = Position { timeline: control.timeline, lsn: control.checkpoint };
        match self.record_at_or_after(at, bound).await? {
            Some(record)
                if record.start == control.checkpoint
                    && record.description.starts_with("CHECKPOINT_SHUTDOWN") =>
            {
                Ok(Position { timeline: control.timeline, lsn: record.end })
            }
            _ => Err(WalReadError::NoShutdownCheckpoint { at: control.checkpoint }),
        }
    }

    /// True when the bytes up to `received` hold only the beginning of a record that starts at `replayed` (P9): a
    /// receive position may stay above the replay position for ever.
    ///
    /// False when a whole record's bytes are there, and when the file cannot be read: not known to be partial.
    pub fn is_partial_record(&self, timeline: Timeline, replayed: Lsn, received: Lsn) -> bool {
        let start = self.segment.record_start(replayed);
        if received.0 < start.0 + 4 {
            return true;
        }
        let path = self.wal.join(self.segment.file_name(timeline, start));
        let mut length = [0; 4];
        let read = std::fs::File::open(path).and_then(|file| {
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut length, start.0 % self.segment.bytes())
        });
        // Every record has a header of 24 bytes; less is no length.
        let length = u64::from(u32::from_le_bytes(length));
        read.is_ok() && length >= 24 && self.segment.record_end(start, length) > received
    }

    /// Timelines above `position`'s that have log files at or after it: records might go on there.
    pub fn later_timelines(
        &self,
        position: Position,
    ) -> std::io::Result<std::collections::BTreeSet<Timeline>> {
        let first = self.segment.segment(position.lsn);
        let mut found = std::collections::BTreeSet::new();
        for entry in std::fs::read_dir(&self.wal)? {
            let name = entry?.file_name();
            if let Some((timeline, segment)) = name.to_str().and_then(|n| self.segment.parse_file_name(n))
                && timeline > position.timeline
                && segment >= first
            {
                found.insert(timeline);
            }
        }
        Ok(found)
    }
}

/// What the program says when it has read everything that is valid.
fn is_end_of_log(said: &str) -> bool {
    [
        "could not find a valid record after",
        "error in WAL record at",
        "invalid record length",
        "could not find file",
        "unexpected pageaddr",
        "invalid magic number",
    ]
    .iter()
    .any(|text| said.contains(text))
        && !said.contains("Permission denied")
}

/// `rmgr: XLOG  len (rec/tot):  114/  114, tx: 0, lsn: 0/01000028, prev 0/00000000, desc: CHECKPOINT_SHUTDOWN …`
fn parse_record(line: &str, segment: SegmentSize) -> Option<Record> {
    let rest = line.strip_prefix("rmgr: ")?;
    let (manager, rest) = rest.split_once("len (rec/tot):")?;
    let (lengths, rest) = rest.split_once(", tx:")?;
    let length: u64 = lengths.split_once('/')?.1.trim().parse().ok()?;
    let (_, rest) = rest.split_once("lsn: ")?;
    let (start, rest) = rest.split_once(',')?;
    let start: Lsn = start.trim().parse().ok()?;
    let description = rest.split_once("desc: ").map_or("", |(_, d)| d).to_owned();
    let manager = manager.trim().to_owned();
    let mut end = segment.record_end(start, length);
    // A switch ends its segment: the rest is padding.
    if manager == "XLOG" && description.starts_with("SWITCH") {
        end = Lsn(end.0.next_multiple_of(segment.bytes()));
    }
    Some(Record { start, end, manager, description })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_a_switch_ends_its_segment() {
        let segment = SegmentSize::new(16 << 20).unwrap();
        let record = parse_record(
            "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/01000028, prev 0/00000000, desc: CHECKPOINT_SHUTDOWN redo 0/1000028; tli 1",
            segment,
        )
        .unwrap();
        assert_eq!((record.start, record.end), (Lsn(0x0100_0028), Lsn(0x0100_00A0)));
        assert!(record.description.starts_with("CHECKPOINT_SHUTDOWN"));
        let switch = parse_record(
            "rmgr: XLOG        len (rec/tot):     24/    24, tx:          0, lsn: 0/02000110, prev 0/020000D8, desc: SWITCH ",
            segment,
        )
        .unwrap();
        assert_eq!(switch.end, Lsn(0x0300_0000));
        assert_eq!(parse_record("pg_waldump: error", segment), None);
    }

    #[test]
    fn p9_a_partial_record_is_told_from_a_whole_one() {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join("pg_wal")).unwrap();
        let segment = SegmentSize::new(1 << 20).unwrap();
        let reader = WalReader { program: "x".into(), wal: data.path().join("pg_wal"), segment };
        let at = Lsn((1 << 20) + 4096);
        let mut content = vec![0; 1 << 20];
        content[4096..4100].copy_from_slice(&100_u32.to_le_bytes());
        std::fs::write(reader.wal.join(segment.file_name(Timeline(1), at)), content).unwrap();
        assert!(reader.is_partial_record(Timeline(1), at, Lsn(at.0 + 99)));
        assert!(!reader.is_partial_record(Timeline(1), at, Lsn(at.0 + 104)));
        assert!(!reader.is_partial_record(Timeline(1), Lsn(at.0 + 104), Lsn(at.0 + 200)), "no length there");
        assert!(!reader.is_partial_record(Timeline(2), at, Lsn(at.0 + 50)), "no such file");
        let later = reader.later_timelines(Position { timeline: Timeline(0), lsn: at }).unwrap();
        assert_eq!(later.into_iter().collect::<Vec<_>>(), [Timeline(1)]);
    }

    #[test]
    fn only_known_words_are_the_end_of_the_log() {
        assert!(is_end_of_log("pg_waldump: error: could not find a valid record after 0/3000060"));
        assert!(is_end_of_log("pg_waldump: error: error in WAL record at 0/1: invalid record length at 0/2"));
        assert!(!is_end_of_log("pg_waldump: error: could not open file \"x\": Permission denied"));
        assert!(!is_end_of_log("exec format error"));
    }
}
