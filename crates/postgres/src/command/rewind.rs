//! `pg_rewind`: makes a diverged data directory a copy of the leader's past.
//!
//! Decides the order: durable marker, then the program, then fsync, then the marker goes. Must never leave a directory
//! that a rewind has touched and not finished without the marker: started, it serves its own diverged rows (P22).
//! Whether a rewind is allowed at all (I12) is the caller's to know. Proved by `tests` and `tests/servers/life.rs`.

use std::time::Duration;

use ha::{Incarnation, Lsn, Timeline};
use serde::{Deserialize, Serialize};

use crate::binaries::Binaries;
use crate::conninfo::{Purpose, Upstream};
use crate::durable::{self, DurableError};
use crate::layout::Layout;
use crate::process::{Program, ProgramError};
use crate::promise::{DurableFile, PromiseError};
use crate::settings::SUPERUSER;

/// What the marker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The server that was rewound to.
    pub source: String,
}

/// What a rewind found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewound {
    /// The directories had diverged here; ours follows the source's now.
    From {
        /// Where they diverged, when the program said so.
        diverged: Option<(Timeline, Lsn)>,
    },
    /// It found no divergence. Right only if the source's control file showed its timeline (P22).
    NotRequired,
}

/// Why a rewind did not end well. But for [`RewindError::Untouched`] the marker stays: the directory must not be started.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// The marker could not be made durable or removed.
    #[error("cannot keep the marker of a rewind")]
    Marker(#[from] PromiseError),
    /// `standby.signal` could not be removed: the program refuses to recover a standby.
    #[error("cannot prepare the directory for a rewind")]
    Prepare(#[from] DurableError),
    /// The program failed after it had begun to change the directory, or nobody can tell.
    #[error("cannot rewind")]
    Run(#[from] ProgramError),
    /// The program failed before it changed anything; the marker is gone, the rewind may be tried again.
    #[error("cannot begin to rewind")]
    Untouched(#[source] ProgramError),
}

/// What the program says last before it changes anything (`pg_rewind.c`: "the point of no return"), with `--progress`, on
/// 15, 17 and 18. Connections, the search for the last common checkpoint, the lists of files and the reading of WAL come
/// before; an unclean directory was recovered, which changes nothing that a start would not.
const TOUCHES: &str = "need to copy ";

/// The marker of a member.
pub fn marker(layout: &Layout) -> DurableFile<Marker> {
    DurableFile::new(layout.rewind_marker())
}

/// True when a rewind began on this directory and did not end, or nobody can tell: it must not be started.
pub fn is_dirty(layout: &Layout) -> bool {
    layout.rewind_marker().exists()
}

/// Rewinds the stopped data directory to `upstream`.
///
/// An unclean directory is recovered first by the program itself (single-user, no connections). Afterwards the caller
/// writes settings and `standby.signal`, and the member reports nothing before it was consistent once.
pub async fn rewind(
    binaries: &Binaries,
    layout: &Layout,
    upstream: &Upstream,
    incarnation: Incarnation,
    bound: Duration,
) -> Result<Rewound, RewindError> {
    let content = Marker { source: format!("{} ({})", upstream.server_name, upstream.address) };
    let file = marker(layout);
    let path = layout.rewind_marker();
    let stored = file.clone();
    durable::ordered(&path, move || Ok(stored.store(&content))).await??;
    let signal = layout.standby_signal();
    durable::ordered(&signal.clone(), move || durable::remove(&signal)).await?;

    let mut found = Rewound::From { diverged: None };
    let mut touched = false;
    let ran = Program::new(binaries.program("pg_rewind"))
        .option("--target-pgdata", layout.data())
        .option("--source-server", upstream.conninfo(incarnation, Purpose::Rewind, Some(SUPERUSER)))
        .arg("--progress")
        .run(bound, |line| {
            tracing::debug!(line, "pg_rewind");
            touched |= line.contains(TOUCHES);
            if let Some(result) = parse_line(line) {
                found = result;
            }
        })
        .await;
    match ran {
        Err(failed @ ProgramError::Failed { .. }) if !touched => {
            durable::ordered(&path, move || Ok(file.remove())).await??;
            Err(RewindError::Untouched(failed))
        }
        Err(failed) => Err(failed.into()),
        Ok(_) => {
            durable::ordered(&path, move || Ok(file.remove())).await??;
            Ok(found)
        }
    }
}

fn parse_line(line: &str) -> Option<Rewound> {
    if line.contains("no rewind required") {
        return Some(Rewound::NotRequired);
    }
    let (_, rest) = line.split_once("servers diverged at WAL location ")?;
    let (lsn, timeline) = rest.split_once(" on timeline ")?;
    Some(Rewound::From { diverged: Some((Timeline(timeline.trim().parse().ok()?), lsn.parse().ok()?)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divergence_is_read() {
        assert_eq!(
            parse_line("pg_rewind: servers diverged at WAL location 0/3000108 on timeline 1"),
            Some(Rewound::From { diverged: Some((Timeline(1), Lsn(0x0300_0108))) })
        );
        assert_eq!(parse_line("pg_rewind: no rewind required"), Some(Rewound::NotRequired));
        assert_eq!(parse_line("pg_rewind: Done!"), None);
    }

    #[tokio::test]
    async fn p22_a_failed_rewind_leaves_its_marker() {
        let said = "echo 'pg_rewind: need to copy 53 MB (total source directory size is 70 MB)' >&2";
        let (error, dirty) = failed(said).await;
        assert!(matches!(error, RewindError::Run(_)), "{error:?}");
        assert!(dirty);
    }

    #[tokio::test]
    async fn a_rewind_that_never_reached_the_source_may_be_tried_again() {
        let (error, dirty) = failed("echo 'pg_rewind: error: connection to server failed' >&2").await;
        assert!(matches!(error, RewindError::Untouched(_)), "{error:?}");
        assert!(!dirty);
    }

    /// The source ended while its files were listed.
    #[tokio::test]
    async fn a_rewind_that_changed_nothing_yet_may_be_tried_again() {
        let said = "echo 'pg_rewind: rewinding from last common checkpoint at 0/2000060 on timeline 1' >&2;\
                    echo 'pg_rewind: reading source file list' >&2;\
                    echo 'pg_rewind: error: could not fetch file list: SSL SYSCALL error: EOF detected' >&2";
        let (error, dirty) = failed(said).await;
        assert!(matches!(error, RewindError::Untouched(_)), "{error:?}");
        assert!(!dirty);
    }

    /// A rewind by a program that says this and fails; whether the directory counts as dirty afterwards.
    async fn failed(said: &str) -> (RewindError, bool) {
        let volume = tempfile::tempdir().unwrap();
        let layout = Layout::new(volume.path());
        layout.prepare().unwrap();
        std::fs::create_dir(layout.data()).unwrap();
        let bin = tempfile::tempdir().unwrap();
        for name in crate::binaries::PROGRAMS {
            let script = match *name {
                "postgres" => "#!/bin/sh\necho 'postgres (PostgreSQL) 17.1'\n".to_owned(),
                _ => format!("#!/bin/sh\n{said}\nexit 1\n"),
            };
            std::fs::write(bin.path().join(name), script).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(bin.path().join(name), mode).unwrap();
        }
        let binaries = Binaries::at(bin.path()).unwrap();
        let tls =
            crate::conninfo::ClientTls { certificate: "c".into(), key: "k".into(), authority: "a".into() };
        let upstream =
            Upstream { address: "127.0.0.1".parse().unwrap(), server_name: "x".into(), port: 1, tls };
        let bound = Duration::from_secs(5);
        let error = rewind(&binaries, &layout, &upstream, Incarnation(1), bound).await.unwrap_err();
        (error, is_dirty(&layout))
    }
}
