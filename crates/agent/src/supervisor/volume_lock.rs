//! The exclusive lock on the volume, held for the supervisor's lifetime (§2, §5).
//!
//! Two pods on one node can mount one volume (a force-deleted pod whose containers still run). Only the holder may start
//! Postgres. The lock ends with the process, never with a file that is left behind.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha::Instant;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::clock;

const TRY_AGAIN: Duration = Duration::from_millis(200);

/// What became of a try.
#[derive(Debug)]
pub(super) enum Tried {
    /// It is held, since just now.
    Obtained,
    /// The file system has no locks; nobody else can hold it either.
    Unsupported,
    /// Not now.
    Failed(io::Error),
    /// Nothing was tried.
    NotDue,
}

/// The lock, held or not.
#[derive(Debug)]
pub(super) struct VolumeLock {
    path: PathBuf,
    held: Option<File>,
    unsupported: bool,
    try_at: Instant,
}

impl VolumeLock {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, held: None, unsupported: false, try_at: Instant(0) }
    }

    pub(super) fn held(&self) -> bool {
        self.held.is_some()
    }

    /// Held, or not to be had on this file system by anybody.
    pub(super) fn permits_start(&self) -> bool {
        self.held() || self.unsupported
    }

    /// When to try again.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.permits_start()).then_some(self.try_at)
    }

    /// Tries, when it is time.
    pub(super) fn turn(&mut self) -> Tried {
        let now = clock::now();
        if self.permits_start() || now < self.try_at {
            return Tried::NotDue;
        }
        self.try_at = now.after(TRY_AGAIN);
        match obtain(&self.path) {
            Ok(Some(file)) => {
                self.held = Some(file);
                Tried::Obtained
            }
            Ok(None) => {
                self.unsupported = true;
                Tried::Unsupported
            }
            Err(error) => Tried::Failed(error),
        }
    }
}

fn obtain(path: &Path) -> io::Result<Option<File>> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
