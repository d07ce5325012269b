//! Hand-over: standbys that do not keep up must not hold the stop up (P17).
//!
//! A fast stop waits until every walsender has sent the shutdown checkpoint and heard that it was flushed: one frozen
//! walreceiver costs `wal_sender_timeout`. Decides who is caught up, and ends everybody else's walsender. Must never end
//! one whose standby is caught up, for that one is the target of the hand-over, nor take a NULL position for caught up
//! (P14). Proved by `tests/servers/handover.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use ha::{Incarnation, Lsn};

use super::standbys::{Walsender, walsenders};
use crate::promote::flush_position;
use crate::session::{Session, SqlError};
use crate::wait::Deadline;

/// How long a hand-over waits for standbys (§4, planned switchover).
pub const PATIENCE: Duration = Duration::from_millis(200);

/// Time between two requests to the same walsender to end: one that is writing to a full connection gives up at the
/// second.
const REPEAT: Duration = Duration::from_millis(50);

/// Who was there when the patience ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lagging {
    /// What they were measured against: the master's flush position when it was asked.
    pub mark: Lsn,
    /// Members that have flushed the mark; their walsenders were left alone.
    pub caught_up: BTreeSet<Incarnation>,
    /// Everybody else's, ended; clones, archivers of the log and impostors included.
    pub ended: Vec<Walsender>,
}

/// Why a walsender may still hold the stop up.
#[derive(Debug, thiserror::Error)]
pub enum LaggingError {
    /// A statement failed.
    #[error("cannot end lagging walsenders")]
    Sql(#[from] SqlError),
    /// Some did not end.
    #[error("{left} lagging walsenders did not end within {bound:?}")]
    Left {
        /// How many.
        left: usize,
        /// The bound.
        bound: Duration,
    },
}

/// Waits up to `patience` for every walsender to have flushed what the master has flushed now, then ends those that have
/// not, and returns when they are gone, within `patience` and `bound`.
///
/// To be called right before the stop: a standby that was cut off connects again within about 100 ms. The master should
/// serve nobody any more, or the mark says little.
pub async fn end_lagging_walsenders(
    session: &Session,
    patience: Duration,
    bound: Duration,
) -> Result<Lagging, LaggingError> {
    let mark = flush_position(session).await?;
    let waiting = Deadline::after(patience);
    let rows = loop {
        let rows = walsenders(session).await?;
        if waiting.passed() || rows.iter().all(|w| has_flushed(w, mark)) {
            break rows;
        }
        waiting.sleep(Duration::from_millis(5)).await;
    };
    let (good, ended): (Vec<_>, Vec<_>) = rows.into_iter().partition(|w| has_flushed(w, mark));
    let caught_up = good.iter().filter_map(Walsender::member).collect();
    end(session, &ended, bound).await?;
    Ok(Lagging { mark, caught_up, ended })
}

fn has_flushed(walsender: &Walsender, mark: Lsn) -> bool {
    walsender.is_streaming() && walsender.flushed.is_some_and(|flushed| flushed >= mark)
}

async fn end(session: &Session, ended: &[Walsender], bound: Duration) -> Result<(), LaggingError> {
    const END: &str = "\
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE pid = ANY ($1) AND backend_type = 'walsender'";
    let pids: Vec<i32> = ended.iter().map(|w| w.pid).collect();
    let deadline = Deadline::after(bound);
    while !pids.is_empty() {
        let left = session.rows("end lagging walsenders", END, &[&pids]).await?.len();
        if left == 0 {
            break;
        }
        if deadline.passed() {
            return Err(LaggingError::Left { left, bound });
        }
        let pause = Deadline::after(REPEAT.min(deadline.left()));
        while !pause.passed() && count(session, &pids).await? > 0 {
            pause.sleep(Duration::from_millis(2)).await;
        }
    }
    Ok(())
}

async fn count(session: &Session, pids: &[i32]) -> Result<i64, SqlError> {
    const LEFT: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1) AND backend_type = 'walsender'";
    session.value("count lagging walsenders", LEFT, &[&pids]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p14_an_unknown_position_is_not_caught_up() {
        let mut walsender = Walsender {
            pid: 1,
            role: None,
            application_name: "x".to_owned(),
            address: None,
            state: "streaming".to_owned(),
            sent: None,
            flushed: None,
            replayed: None,
        };
        assert!(!has_flushed(&walsender, Lsn(0)));
        walsender.flushed = Some(Lsn(8));
        assert!(has_flushed(&walsender, Lsn(8)) && !has_flushed(&walsender, Lsn(9)));
        "catchup".clone_into(&mut walsender.state);
        assert!(!has_flushed(&walsender, Lsn(8)));
    }
}
