//! `initdb`: a new cluster.
//!
//! Decides checksums, encoding, locale and that no password exists yet. Works beside the final place and renames at
//! the end, so that a crash anywhere leaves either no data directory or a complete one. Proved by `tests/servers/life.rs`.

use std::time::Duration;

use crate::binaries::Binaries;
use crate::durable::{self, DurableError};
use crate::layout::Layout;
use crate::process::{Program, ProgramError};
use crate::settings::SUPERUSER;

/// What a new cluster is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initdb {
    /// Encoding of the template databases.
    pub encoding: String,
    /// Locale (libc), such as `C.UTF-8`.
    pub locale: String,
    /// Checksums on data pages.
    pub data_checksums: bool,
    /// Bytes of a WAL segment in MiB; none for PostgreSQL's default of 16.
    pub wal_segment_mib: Option<u16>,
}

impl Default for Initdb {
    fn default() -> Self {
        Self {
            encoding: "UTF8".to_owned(),
            locale: "C.UTF-8".to_owned(),
            data_checksums: true,
            wal_segment_mib: None,
        }
    }
}

/// Why there is no new cluster.
#[derive(Debug, thiserror::Error)]
pub enum InitdbError {
    /// There is a data directory already: it is never touched.
    #[error("there is a data directory already")]
    Exists,
    /// Encoding or locale hold characters that no such name has.
    #[error("{0:?} is neither the name of an encoding nor of a locale")]
    Name(String),
    /// The program failed.
    #[error("cannot make a new cluster")]
    Run(#[from] ProgramError),
    /// The directory could not be put in place.
    #[error("cannot put the new cluster in place")]
    Install(#[from] DurableError),
}

impl Initdb {
    /// Makes the cluster. The superuser has no password; logins are by the Unix socket until the settings are
    /// written. initdb fsyncs everything it wrote.
    pub async fn run(
        &self,
        binaries: &Binaries,
        layout: &Layout,
        bound: Duration,
    ) -> Result<(), InitdbError> {
        if layout.data().exists() {
            return Err(InitdbError::Exists);
        }
        for name in [&self.encoding, &self.locale] {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.@-".contains(&b);
            if name.is_empty() || !name.bytes().all(allowed) || name.starts_with('-') {
                return Err(InitdbError::Name(name.clone()));
            }
        }
        let fresh = layout.data_in_the_making();
        let leftover = fresh.clone();
        durable::off_thread(&fresh, move || durable::remove_tree(&leftover)).await?;
        let mut program = Program::new(binaries.program("initdb"))
            .option("-D", &fresh)
            .option("--username", SUPERUSER)
            .option("--encoding", &self.encoding)
            .option("--locale", &self.locale)
            .arg("--auth-local=peer")
            .arg("--auth-host=reject")
            .arg("--no-instructions");
        if self.data_checksums {
            program = program.arg("--data-checksums");
        } else if binaries.major() >= crate::Major(18) {
            program = program.arg("--no-data-checksums");
        }
        if let Some(mib) = self.wal_segment_mib {
            program = program.arg(format!("--wal-segsize={mib}"));
        }
        program.run(bound, |line| tracing::debug!(line, "initdb")).await?;
        let target = layout.data();
        durable::off_thread(&fresh.clone(), move || durable::rename(&fresh, &target)).await?;
        Ok(())
    }
}
