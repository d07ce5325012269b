//! `pg_basebackup`: a copy of a running server.
//!
//! Decides names, TLS and crash-safety: the copy grows beside the final place and is renamed when complete and fsynced
//! (I3: what is in place is whole). Must never use the member's own application name or slot, since it reports flush
//! positions too (P14), and never overwrite a data directory. Proved by `tests` and `tests/servers/life.rs`.

use std::time::Duration;

use ha::Incarnation;

use crate::binaries::Binaries;
use crate::conninfo::{Purpose, Upstream};
use crate::durable::{self, DurableError};
use crate::layout::Layout;
use crate::process::{Program, ProgramError};

/// How far a clone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// KiB copied.
    pub copied: u64,
    /// KiB in all, as estimated; can be exceeded, since the source goes on growing.
    pub total: u64,
}

/// Why there is no clone.
#[derive(Debug, thiserror::Error)]
pub enum CloneError {
    /// There is a data directory already: setting it aside is a decision of its own.
    #[error("there is a data directory already")]
    Exists,
    /// The program failed.
    #[error("cannot clone")]
    Run(#[from] ProgramError),
    /// The directory could not be put in place.
    #[error("cannot put the clone in place")]
    Install(#[from] DurableError),
}

/// Copies `upstream`'s data directory to where ours belongs, with all WAL that it needs to become consistent.
///
/// PostgreSQL makes a temporary slot of its own for the time of the copy; the member's slot, made by the leader
/// beforehand, keeps the WAL from then on. The caller writes settings and `standby.signal` before the first start.
pub async fn clone_from(
    binaries: &Binaries,
    layout: &Layout,
    upstream: &Upstream,
    incarnation: Incarnation,
    bound: Duration,
    progress: impl FnMut(Progress),
) -> Result<(), CloneError> {
    if layout.data().exists() {
        return Err(CloneError::Exists);
    }
    let fresh = layout.data_in_the_making();
    let leftover = fresh.clone();
    durable::off_thread(&fresh, move || durable::remove_tree(&leftover)).await?;
    let program = Program::new(binaries.program("pg_basebackup"))
        .option("--dbname", upstream.conninfo(incarnation, Purpose::Clone, None))
        .option("--pgdata", &fresh)
        .arg("--wal-method=stream")
        .arg("--checkpoint=fast")
        .arg("--progress")
        .arg("--no-password");
    let mut progress = progress;
    program
        .run(bound, |line| {
            if let Some(seen) = parse_progress(line) {
                progress(seen);
            } else {
                tracing::debug!(line, "pg_basebackup");
            }
        })
        .await?;
    let target = layout.data();
    durable::off_thread(&fresh.clone(), move || {
        crate::layout::private_directory(&fresh)?;
        durable::rename(&fresh, &target)
    })
    .await?;
    Ok(())
}

/// Moves a data directory that is about to be replaced out of the way, keeping only its WAL and control file: what it
/// has that nobody else has (§4 step 10). False when there was none. An older one set aside is kept as well.
pub async fn set_aside(layout: &Layout) -> Result<bool, DurableError> {
    let (data, base) = (layout.data(), layout.set_aside());
    durable::off_thread(&data.clone(), move || {
        if !data.exists() {
            return Ok(false);
        }
        let mut target = base.clone();
        let mut number = 1_u32;
        while target.exists() {
            number += 1;
            target = base.with_extension(format!("diverged.{number}"));
        }
        durable::rename(&data, &target)?;
        // The rename is what matters; the tables can go, since the leader's are complete.
        for name in ["base", "pg_tblspc", "pg_xact", "pg_multixact", "pg_subtrans"] {
            durable::remove_tree(&target.join(name))?;
        }
        Ok(true)
    })
    .await
}

/// A line such as `  23456/345678 kB (6%), 0/1 tablespace`.
fn parse_progress(line: &str) -> Option<Progress> {
    let (numbers, rest) = line.trim_start().split_once(" kB (")?;
    rest.contains("tablespace").then_some(())?;
    let (copied, total) = numbers.split_once('/')?;
    Some(Progress { copied: copied.trim().parse().ok()?, total: total.trim().parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read() {
        assert_eq!(
            parse_progress("  23456/345678 kB (6%), 0/1 tablespace"),
            Some(Progress { copied: 23456, total: 345_678 })
        );
        assert_eq!(
            parse_progress("22/22 kB (100%), 1/1 tablespace (/x/y)"),
            Some(Progress { copied: 22, total: 22 })
        );
        assert_eq!(parse_progress("pg_basebackup: checkpoint completed"), None);
    }

    #[tokio::test]
    async fn a_replaced_directory_keeps_its_wal() {
        let volume = tempfile::tempdir().unwrap();
        let layout = Layout::new(volume.path());
        for round in 0..2 {
            std::fs::create_dir_all(layout.wal()).unwrap();
            std::fs::create_dir_all(layout.data().join("base/1")).unwrap();
            assert!(set_aside(&layout).await.unwrap(), "round {round}");
        }
        assert!(!set_aside(&layout).await.unwrap());
        let second = layout.volume().join("pgdata.diverged.2");
        for kept in [layout.set_aside(), second] {
            assert!(kept.join("pg_wal").exists() && !kept.join("base").exists(), "{}", kept.display());
        }
    }
}
