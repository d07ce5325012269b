//! Where one member's files are.
//!
//! Decides names on the volume and their modes. Must never follow a name given from outside; proved by `tests`.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::durable::DurableError;

/// The default place of PostgreSQL's Unix socket.
pub const RUN_DIRECTORY: &str = "/var/run/postgresql";
/// PostgreSQL's registered port.
pub const PORT: u16 = 5432;

/// The paths of one member: everything that must survive is below `volume`, the socket is in `run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    volume: PathBuf,
    run: PathBuf,
    port: u16,
}

impl Layout {
    /// Paths below this volume, socket directory and port as in the product's pods.
    pub fn new(volume: impl Into<PathBuf>) -> Self {
        Self { volume: volume.into(), run: RUN_DIRECTORY.into(), port: PORT }
    }

    /// The same with another socket directory and port: tests run several members on one machine.
    #[must_use]
    pub fn with_socket(mut self, run: impl Into<PathBuf>, port: u16) -> Self {
        self.run = run.into();
        self.port = port;
        self
    }

    /// The mounted volume.
    pub fn volume(&self) -> &Path {
        &self.volume
    }

    /// The data directory (PGDATA): a sub-directory, so that its mode is ours and not the volume's.
    pub fn data(&self) -> PathBuf {
        self.volume.join("pgdata")
    }

    /// A data directory in the making: initdb and clones work here and are renamed when complete.
    pub fn data_in_the_making(&self) -> PathBuf {
        self.volume.join("pgdata.new")
    }

    /// The diverged WAL of a directory that was replaced, kept until the user lets it go (§4 step 10).
    pub fn set_aside(&self) -> PathBuf {
        self.volume.join("pgdata.diverged")
    }

    /// The diverged log that rewinds threw away, a directory each.
    pub fn diverged(&self) -> PathBuf {
        self.volume.join("diverged")
    }

    /// The write-ahead log inside the data directory.
    pub fn wal(&self) -> PathBuf {
        self.data().join("pg_wal")
    }

    /// What the agent keeps: promise, last record, markers.
    pub fn state(&self) -> PathBuf {
        self.volume.join("matriarch")
    }

    /// The promise (§2).
    pub fn promise(&self) -> PathBuf {
        self.state().join("promise.json")
    }

    /// Exists while a rewind may have left the data directory half done (P22): it is never started then.
    pub fn rewind_marker(&self) -> PathBuf {
        self.state().join("rewinding.json")
    }

    /// `standby.signal` in the data directory.
    pub fn standby_signal(&self) -> PathBuf {
        self.data().join("standby.signal")
    }

    /// The directory of the Unix socket.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The port, which is also part of the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Unix socket itself.
    pub fn socket(&self) -> PathBuf {
        self.run.join(format!(".s.PGSQL.{}", self.port))
    }

    /// True when there is a data directory that was completed: initdb and clone put it there in one rename.
    pub fn has_data(&self) -> bool {
        self.data().join("PG_VERSION").exists()
    }

    /// Makes what is missing and restores mode 0700, which `fsGroup` widens and PostgreSQL then refuses.
    pub fn prepare(&self) -> Result<(), DurableError> {
        private_directory(&self.state())?;
        if self.data().exists() {
            private_directory(&self.data())?;
        }
        Ok(())
    }
}

/// A directory with mode 0700, made or corrected.
pub(crate) fn private_directory(path: &Path) -> Result<(), DurableError> {
    let failed = |step| move |source| DurableError { step, path: path.to_owned(), source };
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => crate::durable::sync_directory(path.parent().unwrap_or(Path::new(".")))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("create the directory")(error)),
    }
    let mode = fs::metadata(path).map_err(failed("look at"))?.permissions().mode() & 0o7777;
    if mode != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed("make private"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_widened_data_directory_is_made_private_again() {
        let volume = tempfile::tempdir().unwrap();
        let layout = Layout::new(volume.path());
        fs::create_dir(layout.data()).unwrap();
        fs::set_permissions(layout.data(), Permissions::from_mode(0o2770)).unwrap();
        layout.prepare().unwrap();
        for path in [layout.data(), layout.state()] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o700);
        }
        assert!(!layout.has_data());
    }
}
