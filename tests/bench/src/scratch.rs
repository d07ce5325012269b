//! A directory of this process alone, removed at its end.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The directory; removed with everything in it when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes one here.
    ///
    /// # Errors
    /// When it cannot be made; one that is there already belongs to somebody else.
    pub(crate) fn new_in(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(format!("{name}{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
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
        let scratch = Scratch::new_in(&std::env::temp_dir(), "scratch-").unwrap();
        let path = scratch.path().to_owned();
        std::fs::write(path.join("file"), "").unwrap();
        assert!(Scratch::new_in(&std::env::temp_dir(), "scratch-").is_err());
        drop(scratch);
        assert!(!path.exists());
    }
}
