//! Queries at a steady pace, each on a new connection: who answers, and is that one in recovery?

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::clock;
use crate::journal::{Attempt, Journal};
use crate::outcome::{Failure, Outcome};
use crate::session::Door;

const SQL: &str = "SELECT host(inet_server_addr()), pg_is_in_recovery()";

/// A reader.
pub(crate) struct Reader {
    /// Where it reads.
    pub(crate) door: Arc<Door>,
    /// What it tells.
    pub(crate) journal: Arc<Journal>,
    /// The pace.
    pub(crate) every: Duration,
}

impl Reader {
    /// Reads until `stop` says true. Fails only when the log cannot be written.
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut n = 0;
        while !*stop.borrow() {
            n += 1;
            let start = Instant::now();
            let began = clock::now();
            let answer = match self.door.open().await {
                Ok(session) => session.run(SQL, &[]).await,
                Err(error) => Err(Failure::NotSent(error)),
            };
            let mut attempt = Attempt {
                n,
                outcome: Outcome::Ok,
                began,
                ended: clock::now(),
                server: None,
                in_recovery: None,
                code: None,
                text: None,
            };
            match answer {
                Ok(rows) => {
                    if let Some(row) = rows.first() {
                        let server: Option<String> = row.try_get(0).ok().flatten();
                        attempt.server = server.and_then(|text| text.parse().ok());
                        attempt.in_recovery = row.try_get(1).ok();
                    }
                }
                Err(failure) => {
                    attempt.outcome = Outcome::Error;
                    attempt.code = failure.code();
                    attempt.text = Some(failure.text());
                }
            }
            self.journal.add(attempt)?;
            sleep_until(start + self.every).await;
        }
        self.journal.finish();
        Ok(())
    }
}
