//! The log that a rewind throws away, kept aside until the user lets it go (§4 step 10).
//!
//! Decides which files hold what the leader's history lacks: the segments from the fork on, of the timeline that forked
//! and of every later one here, and the later ones' histories. A copy is bounded and says what it left out; it is whole
//! or not there, so that a crash anywhere is mended by calling again. Must never delete what was kept before, nor fill
//! the volume. Proved by `tests` and `tests/servers/diverged.rs`.

mod copy;

use std::path::{Path, PathBuf};

use ha::{Lsn, Position, Timeline};
use serde::{Deserialize, Serialize};

use crate::durable::{self, DurableError};
use crate::layout::Layout;
use crate::wal::SegmentSize;

/// The name of the list inside a kept directory.
pub const MANIFEST: &str = "manifest.json";

/// The most that is kept in all, unless the caller says otherwise: 64 segments of the usual size.
pub const LIMIT: u64 = 1 << 30;

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogFile {
    /// Its name in `pg_wal`.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What one kept directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Where this log left the leader's: the last position that both share; none when nobody knew.
    pub fork: Option<Position>,
    /// The files beside the manifest.
    pub files: Vec<LogFile>,
    /// Files that were diverged as well and did not fit into the bound. Not empty means: this copy is not complete.
    pub left_out: Vec<LogFile>,
    /// The bound on everything that is kept, in bytes, when this was kept.
    pub limit: u64,
    /// When, in seconds of Unix time.
    pub kept_at: u64,
}

impl Manifest {
    /// Bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    /// Everything that was diverged is here.
    pub fn is_complete(&self) -> bool {
        self.left_out.is_empty()
    }
}

/// What is inside a directory that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// The log from a fork on, copied before a rewind.
    Log(Manifest),
    /// What is left of a data directory that was replaced by a clone: its log and its control file.
    Replaced,
    /// Nobody can tell: the manifest is missing or damaged. Worth a look before it is deleted.
    Unknown {
        /// Why.
        why: String,
    },
}

/// One thing that is kept until the user lets it go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name, for [`let_go`].
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes that it takes.
    pub bytes: u64,
    /// What it is.
    pub contents: Contents,
}

/// Copies the diverged log of a stopped member aside; call it before every rewind. None when nothing has diverged.
///
/// `fork` is the last position that the leader's history shares with this log (`History::common_position`); none
/// when nobody knows, then the newest segments are kept. `limit` bounds everything that is kept on this volume in bytes,
/// earlier copies included, and half of the free space bounds this copy. A copy of the same content is not made twice.
pub async fn keep_aside(
    layout: &Layout,
    segment: SegmentSize,
    fork: Option<Position>,
    limit: u64,
) -> Result<Option<Kept>, DurableError> {
    let layout = layout.clone();
    durable::off_thread(&layout.diverged(), move || copy::keep(&layout, segment, fork, limit)).await
}

/// Everything that is kept on this volume, to be reported until it is gone.
pub async fn kept(layout: &Layout) -> Result<Vec<Kept>, DurableError> {
    let layout = layout.clone();
    durable::off_thread(&layout.diverged(), move || copy::list(&layout)).await
}

/// Deletes what was kept under this name, as the user asked. False when there is no such thing.
pub async fn let_go(layout: &Layout, name: &str) -> Result<bool, DurableError> {
    let (layout, name) = (layout.clone(), name.to_owned());
    durable::off_thread(&layout.diverged(), move || {
        // Only what the list shows can be deleted, so that no name leads elsewhere.
        match copy::list(&layout)?.into_iter().find(|kept| kept.name == name) {
            Some(kept) => durable::remove_tree(&kept.path),
            None => Ok(false),
        }
    })
    .await
}

/// The directory's name: timeline and position of the fork, both in hexadecimal.
fn name_of(fork: Option<Position>, first: (Timeline, Lsn)) -> String {
    let (timeline, lsn) = fork.map_or(first, |fork| (fork.timeline, fork.lsn));
    format!("{:08X}-{:016X}", timeline.0, lsn.0)
}

/// True when the file begins with a page of this segment: a segment that was recycled under a future name, or made in
/// advance, holds nothing of its own.
fn is_written(path: &Path, start: Lsn) -> std::io::Result<bool> {
    use std::io::Read;
    let mut header = [0; 16];
    match std::fs::File::open(path)?.read_exact(&mut header) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
        other => other?,
    }
    // XLogPageHeaderData: magic (2 bytes), flags (2), timeline (4), address of the page (8).
    let (magic, address) = header.split_at(8);
    let address = address.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    Ok(magic.iter().take(2).any(|byte| *byte != 0) && address == start.0)
}
