//! Archiving held for a stop: a slow `archive_command` keeps a fast stop waiting for minutes (P17).
//!
//! Decides how the running command is ended: the setting goes first, then the command's own processes, since PostgreSQL
//! waits for them. Nothing is lost: a segment that was not archived stays until it is, and `archive_mode` itself, which
//! takes a restart to change, is left alone. Must never signal the archiver itself nor anything that it did not start.
//! Proved by `tests/servers/handover.rs`.

use std::time::Duration;

use rustix::process::Signal;

use crate::layout::Layout;
use crate::procfs;
use crate::reload::{ReloadError, reload};
use crate::server::signal;
use crate::session::{Session, SqlError, column};
use crate::settings::{Archive, Settings, SettingsError};
use crate::wait::Deadline;

/// Why archiving may still hold the stop up.
#[derive(Debug, thiserror::Error)]
pub enum ArchiverError {
    /// The setting could not be written.
    #[error("cannot write the empty archive command")]
    Settings(#[from] SettingsError),
    /// The server did not take it over.
    #[error("cannot make the server stop archiving")]
    Reload(#[from] ReloadError),
    /// A statement failed.
    #[error("cannot find the archiver")]
    Sql(#[from] SqlError),
    /// The command's processes could not be listed or ended.
    #[error("cannot end the archive command")]
    Processes(#[source] std::io::Error),
    /// The command runs on.
    #[error("the archive command runs on after {bound:?}")]
    Left {
        /// The bound.
        bound: Duration,
    },
}

/// Switches `archive_command` off on a running server and ends the command that runs now. Does nothing when `settings`
/// archive nothing. The next start renders the settings anew and archives on.
pub async fn hold(
    layout: &Layout,
    session: &Session,
    settings: &Settings,
    bound: Duration,
) -> Result<(), ArchiverError> {
    if settings.protocol.archive == Archive::Off {
        return Ok(());
    }
    let deadline = Deadline::after(bound);
    let mut held = settings.clone();
    held.protocol.archive = Archive::Held;
    held.write_protocol(layout).await?;
    reload(layout, session, bound).await?;
    // The archiver reads the files at its own time (P13) and may start the command once more meanwhile; two looks at an
    // archiver that runs nothing, apart by more than its own start takes, would still prove nothing, its wait does.
    loop {
        let archivers = archivers(session).await?;
        let mut running = 0;
        for (pid, _) in &archivers {
            for child in procfs::descendants(*pid).map_err(ArchiverError::Processes)? {
                running += 1;
                signal(child, Signal::TERM).map_err(ArchiverError::Processes)?;
            }
        }
        if running == 0 && archivers.iter().all(|(_, idle)| *idle) {
            return Ok(());
        }
        if deadline.passed() {
            return Err(ArchiverError::Left { bound });
        }
        deadline.sleep(Duration::from_millis(10)).await;
    }
}

/// The archiver, when there is one, and whether it waits for work.
async fn archivers(session: &Session) -> Result<Vec<(i32, bool)>, SqlError> {
    const WHAT: &str = "find the archiver";
    const QUERY: &str = "\
SELECT pid, coalesce(wait_event = 'ArchiverMain', false)
  FROM pg_stat_activity WHERE backend_type = 'archiver'";
    session
        .rows(WHAT, QUERY, &[])
        .await?
        .iter()
        .map(|row| Ok((column(WHAT, row, 0)?, column(WHAT, row, 1)?)))
        .collect()
}
