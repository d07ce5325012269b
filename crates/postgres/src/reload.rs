//! A reload that has surely happened.
//!
//! `pg_reload_conf()` only sends a signal. Decides when the postmaster has read the files: a new backend inherits the
//! postmaster's load time, and a second connection is accepted only after the postmaster has finished with the hba file
//! too, since it does one thing at a time. Other processes follow at their own time (P13). Must never report a reload
//! that an error in a file prevented. Proved by `tests/servers/settings.rs` and `tests/servers/gate.rs`.

use std::time::Duration;

use crate::layout::Layout;
use crate::session::{ConnectError, Session, SqlError, column};
use crate::wait::Deadline;

/// Why the new configuration is not known to be in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A statement failed.
    #[error("cannot reload")]
    Sql(#[from] SqlError),
    /// No further session could be opened.
    #[error("cannot look at the reload")]
    Connect(#[from] ConnectError),
    /// The postmaster did not read the files in time.
    #[error("the configuration was not read within {bound:?}")]
    Timeout {
        /// The bound.
        bound: Duration,
    },
    /// A file has errors, so that it was not taken over, or not as a whole.
    #[error("the configuration has errors: {}", problems.join("; "))]
    Problems {
        /// File, line and error of each.
        problems: Vec<String>,
    },
}

const NOW: &str = "SELECT extract(epoch FROM clock_timestamp())::text";
const LOADED_AFTER: &str = "SELECT extract(epoch FROM pg_conf_load_time()) > $1::text::numeric";

/// Reloads and returns when the postmaster has read all files.
pub async fn reload(layout: &Layout, session: &Session, bound: Duration) -> Result<(), ReloadError> {
    let deadline = Deadline::after(bound);
    let before: String = session.value("read the clock", NOW, &[]).await?;
    request(session).await?;
    let mut seen = 0;
    while seen < 2 {
        if deadline.passed() {
            let problems = problems(session).await?;
            if problems.is_empty() {
                return Err(ReloadError::Timeout { bound });
            }
            return Err(ReloadError::Problems { problems });
        }
        let fresh = Session::open(layout, deadline.left().max(Duration::from_millis(100))).await?;
        if fresh.value("read the load time", LOADED_AFTER, &[&before]).await? {
            seen += 1;
        } else {
            deadline.sleep(Duration::from_millis(2)).await;
        }
    }
    let problems = problems(session).await?;
    if problems.is_empty() { Ok(()) } else { Err(ReloadError::Problems { problems }) }
}

/// Sends the signal only.
pub(crate) async fn request(session: &Session) -> Result<(), SqlError> {
    session.value::<bool>("request a reload", "SELECT pg_reload_conf()", &[]).await.map(|_| ())
}

/// Errors in the files on disk, as the server reads them now. A parameter that waits for a restart is none.
pub async fn problems(session: &Session) -> Result<Vec<String>, SqlError> {
    const WHAT: &str = "look for errors in the configuration";
    const SETTINGS: &str = "\
SELECT name, format('%s line %s: %s: %s', regexp_replace(sourcefile, '.*/', ''), sourceline, name, error)
  FROM pg_file_settings
 WHERE error IS NOT NULL AND error NOT LIKE '%cannot be changed without restarting the server'";
    const ACCESS: &str = "\
SELECT format('pg_hba.conf line %s: %s', line_number, error) FROM pg_hba_file_rules WHERE error IS NOT NULL
UNION ALL
SELECT format('pg_ident.conf line %s: %s', line_number, error) FROM pg_ident_file_mappings WHERE error IS NOT NULL";
    let settings = session.rows(WHAT, SETTINGS, &[]).await?;
    // An invalid value and one that waits for a restart carry the same words; the look itself marks the latter.
    let waiting = crate::parameters::pending_restart(session).await?;
    let mut found = Vec::new();
    for row in &settings {
        let name: Option<String> = column(WHAT, row, 0)?;
        if name.is_none_or(|name| !waiting.contains(&name)) {
            found.push(column(WHAT, row, 1)?);
        }
    }
    for row in &session.rows(WHAT, ACCESS, &[]).await? {
        found.push(column(WHAT, row, 0)?);
    }
    Ok(found)
}
