//! Queries at a steady pace, each on a new connection: who answers, and is that one in recovery?

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::attempt::{Answer, Attempt};
use crate::clock;
use crate::journal::Journal;
use crate::outcome::{Failure, Outcome};
use crate::session::Door;

const SQL: &str = "SELECT host(inet_server_addr()), pg_is_in_recovery(), inet_server_port()";

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
            let mut attempt = Attempt::ended_now(n, began, self.ask().await);
            // A read that failed changed nothing, whatever its failure proves.
            if attempt.outcome != Outcome::Ok {
                attempt.outcome = Outcome::Error;
            }
            self.journal.add(attempt)?;
            sleep_until(start + self.every).await;
        }
        self.journal.finish()
    }

    async fn ask(&self) -> Result<Answer, Failure> {
        let session = self.door.open().await.map_err(Failure::NotSent)?;
        let rows = session.run(SQL, &[]).await?;
        let Some(row) = rows.first() else { return Ok(Answer::default()) };
        Ok(Answer {
            server: row.try_get::<_, Option<&str>>(0).ok().flatten().and_then(|text| text.parse().ok()),
            in_recovery: row.try_get(1).ok(),
            port: row.try_get::<_, Option<i32>>(2).ok().flatten().and_then(|port| u16::try_from(port).ok()),
            ..Answer::default()
        })
    }
}
