//! A typed value in one durable file: the promise, the last record, markers.
//!
//! Decides only how it is stored. Must never return from [`DurableFile::store`] before the value would survive a
//! power cut, and never take a damaged file for an absent one (I3). Proved by `tests`.

use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::durable::{self, DurableError};

/// Why a durable value could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PromiseError {
    /// The file is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file's content is not such a value. Never treated as absent: somebody must look.
    #[error("{} does not hold what it should", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The value cannot be written as JSON.
    #[error("cannot render the content of {}", path.display())]
    Render {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The file cannot be made durable.
    #[error("cannot store {}", path.display())]
    Store {
        /// Which file.
        path: PathBuf,
        /// At which step.
        #[source]
        source: DurableError,
    },
}

/// One value of type `T` as JSON in one file, mode 0600.
#[derive(Debug, Clone)]
pub struct DurableFile<T> {
    path: PathBuf,
    value: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> DurableFile<T> {
    /// The value kept at this path. Touches nothing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), value: PhantomData }
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The stored value; none when there is no file.
    pub fn load(&self) -> Result<Option<T>, PromiseError> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PromiseError::Read { path: self.path.clone(), source }),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| PromiseError::Damaged { path: self.path.clone(), source })
    }

    /// Stores the value durably before it returns. Blocks for two fsyncs: call it off the async threads.
    pub fn store(&self, value: &T) -> Result<(), PromiseError> {
        let mut bytes = serde_json::to_vec_pretty(value)
            .map_err(|source| PromiseError::Render { path: self.path.clone(), source })?;
        bytes.push(b'\n');
        durable::write(&self.path, &bytes, 0o600)
            .map_err(|source| PromiseError::Store { path: self.path.clone(), source })
    }

    /// Removes the value durably. True when there was one.
    pub fn remove(&self) -> Result<bool, PromiseError> {
        durable::remove(&self.path).map_err(|source| PromiseError::Store { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i3_a_promise_reads_back_and_damage_is_not_absence() {
        let directory = tempfile::tempdir().unwrap();
        let file = DurableFile::<ha::Promise>::new(directory.path().join("promise.json"));
        assert!(file.load().unwrap().is_none());
        let promise = ha::Promise::new(ha::Incarnation(7), "uid");
        file.store(&promise).unwrap();
        assert_eq!(file.load().unwrap(), Some(promise));
        std::fs::write(file.path(), b"{").unwrap();
        assert!(matches!(file.load(), Err(PromiseError::Damaged { .. })));
    }
}
