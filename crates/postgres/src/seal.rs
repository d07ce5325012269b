//! Sealing: never again acknowledge the old leader, and say how far the own log reaches (§4 step 3, I2).
//!
//! Decides when the stream is surely stopped and where local WAL ends. Must never report a stopped stream while a
//! walreceiver runs or may still be started with the old address, nor an end below a valid record that is on disk.
//!
//! Proof that the startup process knows the empty `primary_conninfo`: it gets the reload's signal directly, and then
//! confirms a pause of replay *twice*. It confirms only after it has looked at its signals, and the second confirmation
//! cannot have begun before the signal arrived. A walreceiver that was asked for earlier may still be in the making: a
//! new session shows that the postmaster has acted on everything asked before, and the kernel's list shows what it
//! forked, named or not. Proved by `tests/servers/seal.rs` (P8, P9, P13).

use std::time::Duration;

use ha::{Lsn, Position};
use rustix::process::Signal;

use crate::command::waldump::{WalReadError, WalReader};
use crate::layout::Layout;
use crate::procfs;
use crate::reload;
use crate::server::{postmaster_pid, signal};
use crate::session::{Session, SqlError, column, lsn_column};
use crate::settings::{Settings, SettingsError};
use crate::wait::Deadline;
use crate::walsender::{IdentifyError, identify_system};

/// Time without progress after which sessions that may hold replay up are ended.
const PATIENCE: Duration = Duration::from_millis(100);

/// Why a seal did not get on.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The empty `primary_conninfo` could not be written.
    #[error("cannot write the empty upstream")]
    Settings(#[from] SettingsError),
    /// A statement failed.
    #[error("cannot seal")]
    Sql(#[from] SqlError),
    /// Processes could not be listed or signalled.
    #[error("cannot reach the server's processes")]
    Processes(#[source] std::io::Error),
    /// The log could not be read.
    #[error("cannot find the end of the log")]
    Read(#[from] WalReadError),
    /// The replay timeline is unknown.
    #[error("cannot read the replay timeline")]
    Identify(#[from] IdentifyError),
    /// The stream does not stop or the startup process does not react: stop PostgreSQL immediately and start it
    /// again without an upstream.
    #[error("the stream did not surely stop within {bound:?}: {what}")]
    Stuck {
        /// The bound.
        bound: Duration,
        /// What was missing.
        what: &'static str,
    },
    /// The end was not reached.
    #[error("the end of the log was not reached within {bound:?}: {what}")]
    NotAtEnd {
        /// The bound.
        bound: Duration,
        /// What was missing.
        what: String,
    },
    /// It is not in recovery.
    #[error("the server is not in recovery")]
    NotInRecovery,
}

/// Stops the stream for good: durable empty `primary_conninfo`, reload, SIGTERM to the walreceiver, again until the
/// startup process surely knows and no walreceiver is left.
///
/// `settings` must name no upstream. Safe to repeat.
pub async fn stop_receiving(
    layout: &Layout,
    session: &Session,
    settings: &Settings,
    bound: Duration,
) -> Result<(), SealError> {
    let deadline = Deadline::after(bound);
    let sealed = Settings { protocol: settings.protocol.sealed(), ..settings.clone() };
    sealed.write_protocol(layout).await?;
    if !session.value::<bool>("ask whether it recovers", "SELECT pg_is_in_recovery()", &[]).await? {
        return Err(SealError::NotInRecovery);
    }
    reload::request(session).await?;
    let cluster_name = &sealed.protocol.cluster_name;
    let patience = Deadline::after(PATIENCE.min(bound));
    let mut what = "the startup process did not confirm";
    loop {
        if deadline.passed() {
            return Err(SealError::Stuck { bound, what });
        }
        end_receivers(layout, session, cluster_name).await?;
        if confirmed(session, deadline).await? && confirmed(session, deadline).await? {
            resume(session).await?;
            what = "a walreceiver is left";
            if nameless_are_gone(layout, session, cluster_name, deadline).await?
                && end_receivers(layout, session, cluster_name).await? == 0
            {
                return Ok(());
            }
        } else if patience.passed() {
            // A replay conflict holds the startup process up: its opponents go.
            end_sessions(session).await?;
        }
        deadline.sleep(Duration::from_millis(5)).await;
    }
}

/// Ends every process that was forked up to now and has no name yet: one may be a walreceiver, the others are clients
/// that have not said who they are. Those forked later were not asked for by the old upstream's settings, so that
/// nobody can hold a seal up by connecting again and again.
async fn nameless_are_gone(
    layout: &Layout,
    session: &Session,
    cluster_name: &str,
    deadline: Deadline,
) -> Result<bool, SealError> {
    let bound = deadline.left().max(PATIENCE);
    if Session::open(layout, bound).await.is_err() {
        return Ok(false);
    }
    let mut nameless = receivers(layout, session, cluster_name).await?.nameless;
    for pid in &nameless {
        signal(*pid, Signal::TERM).map_err(SealError::Processes)?;
    }
    while !nameless.is_empty() {
        if deadline.passed() {
            return Ok(false);
        }
        deadline.sleep(Duration::from_millis(1)).await;
        let now = receivers(layout, session, cluster_name).await?.nameless;
        nameless.retain(|pid| now.contains(pid));
    }
    Ok(true)
}

/// True when no walreceiver runs, by PostgreSQL's and the kernel's lists. To be asked again as long as the seal holds.
pub async fn is_silent(layout: &Layout, session: &Session, cluster_name: &str) -> Result<bool, SealError> {
    Ok(receivers(layout, session, cluster_name).await?.receivers.is_empty())
}

/// Waits for the end of local WAL on a sealed standby and gives its position (§4 step 3c and d).
///
/// The caller has stopped the stream and made its promise durable before.
pub async fn end_of_wal(
    layout: &Layout,
    session: &Session,
    reader: &WalReader,
    cluster_name: &str,
    bound: Duration,
) -> Result<Position, SealError> {
    let deadline = Deadline::after(bound);
    let mut last = None;
    let mut patience = Deadline::after(PATIENCE);
    loop {
        let seen = look(session).await?;
        let mut what = None;
        if seen.paused {
            resume(session).await?;
        }
        if seen.has_upstream || !is_silent(layout, session, cluster_name).await? {
            what = Some("the stream goes on".to_owned());
        }
        if let (None, Some(replayed)) = (&what, seen.replayed) {
            let timeline = identify_system(layout, deadline.left().max(PATIENCE)).await?.timeline;
            let position = Position { timeline, lsn: replayed };
            what = what_follows(reader, position, seen.received, deadline).await?;
            // (d): nothing has moved while we looked, and nobody streams.
            let again = look(session).await?;
            if what.is_none()
                && again.replayed == Some(replayed)
                && !again.has_upstream
                && identify_system(layout, deadline.left().max(PATIENCE)).await?.timeline == timeline
                && is_silent(layout, session, cluster_name).await?
            {
                return Ok(position);
            }
        }
        if deadline.passed() {
            let what = what.unwrap_or_else(|| "replay has not begun, or goes on".to_owned());
            return Err(SealError::NotAtEnd { bound, what });
        }
        if seen.replayed != last {
            last = seen.replayed;
            patience = Deadline::after(PATIENCE);
        } else if patience.passed() {
            end_sessions(session).await?;
            patience = Deadline::after(PATIENCE);
        }
        // P8: it may sleep with WAL unread; its reload signal wakes it.
        if let Some(startup) = receivers(layout, session, cluster_name).await?.startup {
            signal(startup, Signal::HUP).map_err(SealError::Processes)?;
        }
        deadline.sleep(Duration::from_millis(5)).await;
    }
}

/// What is left to replay behind `position`; none when it is the end of the log.
async fn what_follows(
    reader: &WalReader,
    position: Position,
    received: Option<Lsn>,
    deadline: Deadline,
) -> Result<Option<String>, SealError> {
    let bound = deadline.left().max(Duration::from_millis(500));
    if let Some(record) = reader.record_at_or_after(position, bound).await? {
        return Ok(Some(format!("a record at {} is not replayed", record.start)));
    }
    for timeline in reader.later_timelines(position).map_err(SealError::Processes)? {
        let later = Position { timeline, lsn: position.lsn };
        if let Some(record) = reader.record_at_or_after(later, bound).await? {
            return Ok(Some(format!("a record at {} of timeline {timeline} is not replayed", record.start)));
        }
    }
    match received {
        Some(received)
            if received > position.lsn
                && !reader.is_partial_record(position.timeline, position.lsn, received) =>
        {
            Ok(Some(format!("received up to {received}, replayed up to {}", position.lsn)))
        }
        _ => Ok(None),
    }
}

struct Seen {
    received: Option<Lsn>,
    replayed: Option<Lsn>,
    paused: bool,
    has_upstream: bool,
}

async fn look(session: &Session) -> Result<Seen, SealError> {
    const WHAT: &str = "read the replay position";
    const QUERY: &str = "\
SELECT pg_last_wal_receive_lsn()::text, pg_last_wal_replay_lsn()::text,
       CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END,
       current_setting('primary_conninfo') <> ''";
    let row = session.row(WHAT, QUERY, &[]).await?;
    let pause: Option<String> = column(WHAT, &row, 2)?;
    let Some(pause) = pause else { return Err(SealError::NotInRecovery) };
    Ok(Seen {
        received: lsn_column(WHAT, &row, 0)?,
        replayed: lsn_column(WHAT, &row, 1)?,
        paused: pause != "not paused",
        has_upstream: column(WHAT, &row, 3)?,
    })
}

/// One round of the proof: signal, request a pause, see it confirmed. False when the startup process does not react.
async fn confirmed(session: &Session, deadline: Deadline) -> Result<bool, SealError> {
    const WHAT: &str = "ask the startup process to confirm";
    const STARTUP: &str = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'";
    for row in session.rows(WHAT, STARTUP, &[]).await? {
        signal(column(WHAT, &row, 0)?, Signal::HUP).map_err(SealError::Processes)?;
    }
    // A pause that somebody asked for earlier proves nothing: it is taken back first.
    resume(session).await?;
    session.rows(WHAT, "SELECT pg_wal_replay_pause()", &[]).await?;
    let round = Deadline::after(PATIENCE.min(deadline.left()));
    loop {
        let state: String = session.value(WHAT, "SELECT pg_get_wal_replay_pause_state()", &[]).await?;
        if state == "paused" {
            return Ok(true);
        }
        if round.passed() {
            resume(session).await?;
            return Ok(false);
        }
        round.sleep(Duration::from_millis(1)).await;
    }
}

async fn resume(session: &Session) -> Result<(), SealError> {
    session.rows("resume replay", "SELECT pg_wal_replay_resume()", &[]).await?;
    Ok(())
}

struct Processes {
    startup: Option<i32>,
    receivers: Vec<i32>,
    /// Children of the postmaster without a title of their own.
    nameless: Vec<i32>,
}

async fn receivers(layout: &Layout, session: &Session, cluster_name: &str) -> Result<Processes, SealError> {
    const WHAT: &str = "list the server's processes";
    let missing = || SealError::Processes(std::io::ErrorKind::NotFound.into());
    let postmaster = postmaster_pid(layout).ok_or_else(missing)?;
    let children = procfs::children(postmaster, cluster_name).map_err(SealError::Processes)?;
    let rows = session.rows(WHAT, "SELECT pid, backend_type FROM pg_stat_activity", &[]).await?;
    let mut startup = None;
    let mut receivers = Vec::new();
    let mut listed = Vec::new();
    for row in &rows {
        let pid: Option<i32> = column(WHAT, row, 0)?;
        let kind: Option<String> = column(WHAT, row, 1)?;
        let Some(pid) = pid else { continue };
        listed.push(pid);
        match kind.as_deref() {
            Some("startup") => startup = Some(pid),
            Some("walreceiver") => receivers.push(pid),
            _ => {}
        }
    }
    let unlisted = children.iter().filter(|c| c.looks_like_walreceiver() && !listed.contains(&c.pid));
    receivers.extend(unlisted.map(|c| c.pid));
    let nameless = children.iter().filter(|c| c.title.is_none() && !listed.contains(&c.pid)).map(|c| c.pid);
    Ok(Processes { startup, receivers, nameless: nameless.collect() })
}

/// Asks every walreceiver to end; how many there were. SIGTERM, never SIGKILL: that would restart the server.
async fn end_receivers(layout: &Layout, session: &Session, cluster_name: &str) -> Result<usize, SealError> {
    let found = receivers(layout, session, cluster_name).await?.receivers;
    for pid in &found {
        signal(*pid, Signal::TERM).map_err(SealError::Processes)?;
    }
    Ok(found.len())
}

/// Ends every client session: any of them may hold replay up, and a new leader would end them all the same.
async fn end_sessions(session: &Session) -> Result<(), SealError> {
    const QUERY: &str = "\
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND application_name <> 'matriarch'";
    session.rows("end sessions that may hold replay up", QUERY, &[]).await?;
    Ok(())
}
