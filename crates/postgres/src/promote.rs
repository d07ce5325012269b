//! From standby to master, on exactly the timeline that was won (§4 step 7).
//!
//! Decides how the promotion is triggered and when it counts as done. Must never accept another timeline than the
//! recorded one (I11) nor wait for the checkpoint. Gate, names and planted files come before and are not checked here;
//! the caller holds the fence token. Proved by `tests/servers/life.rs`.

use std::time::Duration;

use ha::{Lsn, Timeline};
use tokio::task::JoinHandle;

use crate::layout::Layout;
use crate::session::{ConnectError, Flavour, Session, SqlError, column, lsn_column};
use crate::wait::Deadline;
use crate::walsender::{IdentifyError, identify_system};

/// A completed promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promoted {
    /// The timeline that it writes: the expected one.
    pub timeline: Timeline,
    /// At or after the end of the timeline's first record: what w members must have flushed (I13).
    pub first_record: Lsn,
}

/// Why a promotion did not complete. A half-done one is never repeated under the same record (P24).
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// It is no standby.
    #[error("the server is not in recovery")]
    NotInRecovery,
    /// A statement failed.
    #[error("cannot promote")]
    Sql(#[from] SqlError),
    /// The server refused to be promoted.
    #[error("the server did not accept the promotion")]
    Refused,
    /// It is still in recovery.
    #[error("still in recovery after {0:?}")]
    Timeout(Duration),
    /// Its timeline could not be read.
    #[error("cannot read the timeline")]
    Identify(#[from] IdentifyError),
    /// PostgreSQL chose another timeline: this server must stop.
    #[error("promoted to timeline {found} instead of {expected}")]
    WrongTimeline {
        /// The recorded one.
        expected: Timeline,
        /// The chosen one.
        found: Timeline,
    },
}

/// Promotes and waits until the server is out of recovery on `expected`.
pub async fn promote(
    layout: &Layout,
    session: &Session,
    expected: Timeline,
    bound: Duration,
) -> Result<Promoted, PromoteError> {
    let deadline = Deadline::after(bound);
    if !in_recovery(session).await? {
        return Err(PromoteError::NotInRecovery);
    }
    // P18: waiting inside the server polls ten times slower than this.
    if !session.value::<bool>("promote", "SELECT pg_promote(false)", &[]).await? {
        return Err(PromoteError::Refused);
    }
    while in_recovery(session).await? {
        if deadline.passed() {
            return Err(PromoteError::Timeout(bound));
        }
        deadline.sleep(Duration::from_millis(2)).await;
    }
    let identity = identify_system(layout, deadline.left().max(Duration::from_millis(500))).await?;
    if identity.timeline != expected {
        return Err(PromoteError::WrongTimeline { expected, found: identity.timeline });
    }
    // The end-of-recovery record was flushed before recovery ended.
    let first_record = flush_position(session).await?;
    Ok(Promoted { timeline: expected, first_record })
}

async fn in_recovery(session: &Session) -> Result<bool, SqlError> {
    session.value("ask whether it recovers", "SELECT pg_is_in_recovery()", &[]).await
}

/// A master's own flush position. Moves without any acknowledgement (P10).
pub async fn flush_position(session: &Session) -> Result<Lsn, SqlError> {
    const WHAT: &str = "read the flush position";
    let row = session.row(WHAT, "SELECT pg_current_wal_flush_lsn()::text", &[]).await?;
    lsn_column(WHAT, &row, 0)?.ok_or(SqlError::Answer { what: WHAT, value: "NULL".to_owned() })
}

/// Writes and flushes a record of this start as master and gives a position at or after its end (I13): a master that
/// was stopped cleanly writes nothing by itself when it starts.
pub async fn write_first_record(session: &Session) -> Result<Lsn, SqlError> {
    let write = "SELECT pg_logical_emit_message(true, 'matriarch', 'start')::text";
    session.value::<String>("write the first record", write, &[]).await?;
    flush_position(session).await
}

/// The next transaction id, 64 bits wide: no earlier term used it or a higher one visibly (`fenceXid`, §4 step 8).
pub async fn fence_xid(session: &Session) -> Result<u64, SqlError> {
    const WHAT: &str = "read the next transaction id";
    let text: String =
        session.value(WHAT, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text", &[]).await?;
    text.parse().map_err(|_| SqlError::Answer { what: WHAT, value: text })
}

/// The control file's timeline as the running server shows it: a rewind from here is right only when it is the
/// recorded one (P22).
pub async fn control_timeline(session: &Session) -> Result<Timeline, SqlError> {
    const WHAT: &str = "read the control file's timeline";
    let row = session.row(WHAT, "SELECT (pg_control_checkpoint()).timeline_id::bigint", &[]).await?;
    let id: i64 = column(WHAT, &row, 0)?;
    u32::try_from(id).map(Timeline).map_err(|_| SqlError::Answer { what: WHAT, value: id.to_string() })
}

/// Why a checkpoint did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// No session.
    #[error("cannot connect for a checkpoint")]
    Connect(#[from] ConnectError),
    /// The statement failed.
    #[error("cannot checkpoint")]
    Sql(#[from] SqlError),
}

/// Starts a checkpoint that nobody waits for, on a session of its own. `bound` ends it all the same.
pub fn checkpoint(layout: &Layout, bound: Duration) -> JoinHandle<Result<(), CheckpointError>> {
    let layout = layout.clone();
    tokio::spawn(async move {
        let flavour = Flavour { statement_timeout: Duration::ZERO, ..Flavour::default() };
        let session = Session::open_as(&layout, Duration::from_secs(5), flavour).await?.with_bound(bound);
        session.batch("checkpoint", "CHECKPOINT").await?;
        Ok(())
    })
}
