//! Attempts at a steady pace, each numbered by the writer and logged before the next one begins.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::attempt::{Attempt, Mode};
use crate::clock;
use crate::journal::Journal;
use crate::outcome::Failure;
use crate::session::{Door, Session};
use crate::workload::Plan;

/// A writer of one mode and one workload.
pub(crate) struct Writer {
    /// Where it writes.
    pub(crate) door: Arc<Door>,
    /// What it tells.
    pub(crate) journal: Arc<Journal>,
    /// What it writes.
    pub(crate) plan: Plan,
    /// The pace: an attempt begins this long after the last one began, or at once when that took longer.
    pub(crate) every: Duration,
}

impl Writer {
    /// Writes until `stop` says true. Fails only when the log cannot be written.
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut kept: Option<Session> = None;
        let mut n = 0;
        while !*stop.borrow() {
            n += 1;
            let start = Instant::now();
            let began = clock::now();
            let session = match kept.take() {
                Some(session) if !session.is_closed() => Ok(session),
                _ => self.door.open().await,
            };
            let result = match session {
                Err(error) => Err(Failure::NotSent(error)),
                Ok(session) => {
                    let result = self.plan.attempt(&session, n).await;
                    // After a failure nobody knows what the session still has in hand.
                    if result.is_ok() && self.journal.identity.mode != Mode::Fresh {
                        kept = Some(session);
                    }
                    result
                }
            };
            self.journal.add(Attempt::ended_now(n, began, result))?;
            sleep_until(start + self.every).await;
        }
        self.journal.finish()
    }
}
