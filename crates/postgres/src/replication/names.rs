//! `synchronous_standby_names` that are surely in force (rule 7a, I7, P5).
//!
//! `SHOW` proves nothing: backends skip the wait by a shared flag that only the checkpointer sets. Decides the order of
//! a change, and the proof: a commit that is *seen* waiting. Must never go from empty to real names without that proof.
//! Proved by `tests/servers/names.rs`.

use std::time::Duration;

use ha::Names;

use crate::layout::Layout;
use crate::reload::{ReloadError, reload};
use crate::session::{ConnectError, Flavour, Session, SqlError, column};
use crate::settings::{Settings, SettingsError};
use crate::wait::Deadline;

/// Why names are not known to be in force.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// The file could not be written.
    #[error("cannot write the names")]
    Settings(#[from] SettingsError),
    /// The server did not take it over.
    #[error("cannot make the server read the names")]
    Reload(#[from] ReloadError),
    /// A statement failed.
    #[error("cannot prove that the names are in force")]
    Sql(#[from] SqlError),
    /// No session for the probe.
    #[error("cannot connect for the probe")]
    Connect(#[from] ConnectError),
    /// No commit was seen waiting.
    #[error("no commit was seen waiting within {bound:?}: the names are not in force")]
    NotInForce {
        /// The bound.
        bound: Duration,
    },
}

/// Puts `settings.protocol.names` in force on a master, coming from `from` ([`Names::Unknown`] when nobody knows).
///
/// From empty or unknown to a quorum: first the placeholder, then the proof, then the real names. Between quorums one
/// write and a reload suffice: processes may use the old or the new for a while, both of which the record holds (§6).
/// To make every walsender use them, end the walsenders afterwards.
pub async fn put_in_force(
    layout: &Layout,
    session: &Session,
    settings: &Settings,
    from: &Names,
    bound: Duration,
) -> Result<(), NamesError> {
    let deadline = Deadline::after(bound);
    let waits = |names: &Names| matches!(names, Names::Placeholder | Names::Quorum { .. });
    if waits(&settings.protocol.names) && !waits(from) {
        let mut first = settings.clone();
        first.protocol.names = Names::Placeholder;
        write(layout, session, &first, deadline).await?;
        prove_waiting(layout, session, deadline.left()).await?;
        if settings.protocol.names == Names::Placeholder {
            return Ok(());
        }
    }
    write(layout, session, settings, deadline).await
}

async fn write(
    layout: &Layout,
    session: &Session,
    settings: &Settings,
    deadline: Deadline,
) -> Result<(), NamesError> {
    settings.write_protocol(layout).await?;
    reload(layout, session, deadline.left()).await?;
    Ok(())
}

/// Proves that commits wait: one of our own is seen in `SyncRep`. For use with names that nobody satisfies.
///
/// The probe's session is ended afterwards: its commit stays local and is acknowledged to nobody (P4).
pub async fn prove_waiting(layout: &Layout, session: &Session, bound: Duration) -> Result<(), NamesError> {
    let deadline = Deadline::after(bound);
    let flavour =
        Flavour { synchronous_commit: "on", statement_timeout: Duration::ZERO, ..Flavour::default() };
    while !deadline.passed() {
        let probe = match Session::open_as(layout, deadline.left(), flavour.clone()).await {
            Err(ConnectError::Timeout(_)) if deadline.passed() => break,
            other => other?,
        };
        let pid: i32 = probe.value("name the probe", "SELECT pg_backend_pid()", &[]).await?;
        let commit = async {
            let emit = "SELECT pg_logical_emit_message(true, 'matriarch', 'probe')::text";
            // Its answer proves nothing; only the sight of it waiting does.
            let _ = probe.value::<String>("commit the probe", emit, &[]).await;
        };
        let seen = tokio::select! {
            () = commit => false,
            seen = seen_waiting(session, pid, deadline) => seen?,
        };
        session.rows("end the probe", "SELECT pg_terminate_backend($1)", &[&pid]).await?;
        if seen {
            return Ok(());
        }
        deadline.sleep(Duration::from_millis(10)).await;
    }
    Err(NamesError::NotInForce { bound })
}

async fn seen_waiting(session: &Session, pid: i32, deadline: Deadline) -> Result<bool, SqlError> {
    const WHAT: &str = "look at the probe";
    const QUERY: &str =
        "SELECT wait_event IS NOT DISTINCT FROM 'SyncRep' FROM pg_stat_activity WHERE pid = $1";
    while !deadline.passed() {
        let rows = session.rows(WHAT, QUERY, &[&pid]).await?;
        if let Some(row) = rows.first()
            && column::<bool>(WHAT, row, 0)?
        {
            return Ok(true);
        }
        deadline.sleep(Duration::from_millis(2)).await;
    }
    Ok(false)
}
