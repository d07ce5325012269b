//! A directory of this process alone, removed at its end.
//!
//! No crate does it here: one that does would turn on features of others, and the product would be compiled once more for
//! a measurement, other than it is delivered.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::Timestamp;

/// The directory; removed with everything in it when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one here, with a name that begins so.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new_in(parent: &Path, prefix: &str) -> std::io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        // In a namespace of its own every run of a program has the same number.
        let (process, time) = (std::process::id(), Timestamp::now().as_millisecond());
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{prefix}{process}-{time}-{number}"));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_it() {
        let of = || Scratch::new_in(&std::env::temp_dir(), "scratch-").unwrap();
        let (one, other) = (of(), of());
        let path = one.path().to_owned();
        std::fs::write(path.join("file"), "").unwrap();
        assert_ne!(path, other.path());
        drop(one);
        assert!(!path.exists() && other.path().exists());
    }
}
