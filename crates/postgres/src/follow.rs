//! Being a standby: the signal file, and whom to stream from.
//!
//! Decides how a running standby gets another upstream (a reload suffices, the walreceiver restarts by itself). Must
//! never leave a member without `standby.signal` that may not lead (P24), nor point it at a Service (P20); that the
//! upstream's boot and history equal the record is the caller's check (I11). Proved by `tests/servers/life.rs`
//! and `tests/servers/crash.rs`.

use std::time::Duration;

use crate::durable::{self, DurableError};
use crate::layout::Layout;
use crate::reload::{ReloadError, reload};
use crate::session::{Session, SqlError};
use crate::settings::{Settings, SettingsError};

/// Why the upstream did not change.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The settings have no upstream to follow.
    #[error("the settings name no upstream")]
    NoUpstream,
    /// The files could not be written.
    #[error("cannot write whom to follow")]
    Settings(#[from] SettingsError),
    /// The server did not take them over.
    #[error("cannot make the server follow")]
    Reload(#[from] ReloadError),
    /// Replay stays paused.
    #[error("cannot let replay go on")]
    Resume(#[from] SqlError),
}

/// Makes the next start one as a standby, durably. Before every start, unless a fresh authority is held.
pub async fn make_standby(layout: &Layout) -> Result<(), DurableError> {
    let path = layout.standby_signal();
    durable::ordered(&path.clone(), move || {
        durable::write_if_changed(&path, b"", 0o600)?;
        // A leftover of a restore would end recovery at some target.
        let recovery = path.with_file_name("recovery.signal");
        durable::remove(&recovery).map(|_| ())
    })
    .await
}

/// Makes the next start one as a master, durably: no signal file of any kind.
pub async fn make_primary(layout: &Layout) -> Result<(), DurableError> {
    let path = layout.standby_signal();
    durable::ordered(&path.clone(), move || {
        durable::remove(&path)?;
        durable::remove(&path.with_file_name("recovery.signal")).map(|_| ())
    })
    .await
}

const RESUME: &str = "\
SELECT pg_wal_replay_resume()
 WHERE pg_is_in_recovery() AND pg_get_wal_replay_pause_state() <> 'not paused'";

/// Makes a running standby stream from `settings.protocol.upstream`.
///
/// A paused replay goes on: a seal that died half-way may have left it paused (it pauses to prove that the stream is
/// stopped), and then nothing would ever be streamed again. One that PostgreSQL paused for want of higher values (P19)
/// ends the server instead, and its next start has them.
pub async fn follow(
    layout: &Layout,
    session: &Session,
    settings: &Settings,
    bound: Duration,
) -> Result<(), FollowError> {
    if settings.protocol.upstream.is_none() {
        return Err(FollowError::NoUpstream);
    }
    settings.write_protocol(layout).await?;
    reload(layout, session, bound).await?;
    session.rows("let replay go on", RESUME, &[]).await?;
    Ok(())
}
