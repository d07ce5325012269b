//! The gate: nobody but the agent and replication reaches a server before it may serve (§4 steps 6 and 8, I13).
//!
//! Decides how it is closed so that it *is* closed: file, reload, then every session ends, those still authenticating
//! included, until none is left; a session that is open on a hot standby could write at once after the promotion
//! (P21). Must never report closed while a client is left. Proved by `tests/servers/gate.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;

use crate::layout::Layout;
use crate::procfs;
use crate::reload::{ReloadError, reload};
use crate::server::{postmaster_pid, signal};
use crate::session::{Session, SqlError, column};
use crate::settings::{Access, Settings, SettingsError};
use crate::wait::Deadline;

/// Why the gate did not move.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The settings ask for the other position.
    #[error("the settings ask for another position of the gate")]
    Access,
    /// The file could not be written.
    #[error("cannot write the gate")]
    Settings(#[from] SettingsError),
    /// The server did not take it over.
    #[error("cannot make the server use the gate")]
    Reload(#[from] ReloadError),
    /// Sessions could not be listed or ended.
    #[error("cannot end client sessions")]
    Sql(#[from] SqlError),
    /// There is no postmaster to ask the kernel about.
    #[error("cannot list the server's processes")]
    Processes(#[source] std::io::Error),
    /// Sessions are left.
    #[error("{left} client sessions are left after {bound:?}")]
    Left {
        /// How many.
        left: usize,
        /// The bound.
        bound: Duration,
    },
}

/// Closes the gate and ends every client session. `settings.hba` must be closed.
pub async fn close(
    layout: &Layout,
    session: &Session,
    settings: &Settings,
    bound: Duration,
) -> Result<(), GateError> {
    if settings.hba.access != Access::Closed {
        return Err(GateError::Access);
    }
    let deadline = Deadline::after(bound);
    settings.write_hba(layout).await?;
    reload(layout, session, deadline.left()).await?;
    end_clients(layout, session, &settings.protocol.cluster_name, deadline).await
}

/// Opens the gate. `settings.hba` must be open.
///
/// Nobody is ended: [`close`] left no client behind, and those who knock meanwhile are refused by the closed file until
/// the reload. Waiting for a moment without any would never end while clients reconnect as fast as they can.
pub async fn open(
    layout: &Layout,
    session: &Session,
    settings: &Settings,
    bound: Duration,
) -> Result<(), GateError> {
    if settings.hba.access != Access::Open {
        return Err(GateError::Access);
    }
    settings.write_hba(layout).await?;
    reload(layout, session, bound).await?;
    Ok(())
}

/// Writes the members whose certificate may take their role, whatever the gate's position, and reloads.
pub async fn admit_members(
    layout: &Layout,
    session: &Session,
    settings: &Settings,
    bound: Duration,
) -> Result<(), GateError> {
    if settings.write_hba(layout).await? {
        reload(layout, session, bound).await?;
    }
    Ok(())
}

const WHAT: &str = "end client sessions";

/// Client sessions that are not the agent's. Walsenders have a backend type of their own and stay.
const CLIENTS: &str = "\
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
   AND NOT (usename IS NOT DISTINCT FROM 'postgres' AND application_name = 'matriarch' AND client_addr IS NULL)";

/// Called after the reload: a backend goes by the hba lines that the postmaster had when it was forked, so only those
/// half-way in at the first look can have been forked before. Later ones are refused; there may always be some.
async fn end_clients(
    layout: &Layout,
    session: &Session,
    cluster_name: &str,
    deadline: Deadline,
) -> Result<(), GateError> {
    let mut early: Option<BTreeSet<i32>> = None;
    let mut quiet = 0;
    loop {
        let rows = session.rows(WHAT, CLIENTS, &[]).await?;
        let authenticating = authenticating(layout, session, cluster_name).await?;
        let early = early.get_or_insert_with(|| authenticating.clone());
        early.retain(|pid| authenticating.contains(pid));
        for pid in early.iter() {
            signal(*pid, Signal::TERM).map_err(GateError::Processes)?;
        }
        let left = rows.len() + early.len();
        quiet = if left == 0 { quiet + 1 } else { 0 };
        // Twice: a session can pass from authenticating to admitted between the two looks.
        if quiet == 2 {
            return Ok(());
        }
        if deadline.passed() {
            return Err(GateError::Left { left, bound: deadline.bound() });
        }
        deadline.sleep(Duration::from_millis(2)).await;
    }
}

/// Clients that PostgreSQL has not admitted yet: their hba line may have been chosen while the gate was open.
async fn authenticating(
    layout: &Layout,
    session: &Session,
    cluster_name: &str,
) -> Result<BTreeSet<i32>, GateError> {
    let missing = || GateError::Processes(std::io::ErrorKind::NotFound.into());
    let postmaster = postmaster_pid(layout).ok_or_else(missing)?;
    let children = procfs::children(postmaster, cluster_name).map_err(GateError::Processes)?;
    // From 18 on those that authenticate are listed too, with this state only.
    let rows = session
        .rows(WHAT, "SELECT pid FROM pg_stat_activity WHERE state IS DISTINCT FROM 'starting'", &[])
        .await?;
    let listed: BTreeSet<i32> = rows.iter().map(|row| column(WHAT, row, 0)).collect::<Result<_, _>>()?;
    let waiting = children.iter().filter(|child| child.may_be_authenticating()).map(|child| child.pid);
    Ok(waiting.filter(|pid| !listed.contains(pid)).collect())
}
