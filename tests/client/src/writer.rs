//! Single-row inserts at a steady pace, each numbered by the writer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::types::Type;

use crate::clock;
use crate::journal::{Attempt, Journal, Mode};
use crate::outcome::{Failure, Outcome};
use crate::session::{Door, Session};

/// A writer of one mode.
pub(crate) struct Writer {
    /// Where it writes.
    pub(crate) door: Arc<Door>,
    /// What it tells.
    pub(crate) journal: Arc<Journal>,
    /// The pace: an attempt begins this long after the last one began, or at once when that took longer.
    pub(crate) every: Duration,
}

impl Writer {
    /// Writes until `stop` says true. Fails only when the log cannot be written.
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let table = &self.journal.identity.table;
        let sql =
            format!("INSERT INTO {table} (writer, n) VALUES ($1, $2) RETURNING host(inet_server_addr())");
        let mut kept: Option<Session> = None;
        let mut n = 0;
        while !*stop.borrow() {
            n += 1;
            let start = Instant::now();
            let began = clock::now();
            let mut session = match kept.take() {
                Some(session) if !session.is_closed() => Ok(session),
                _ => self.door.open().await,
            };
            let answer = match &mut session {
                Err(error) => Err(Failure::NotSent(std::mem::replace(error, anyhow::Error::msg("")))),
                Ok(session) => {
                    session.run(&sql, &[(&self.journal.identity.writer, Type::TEXT), (&n, Type::INT8)]).await
                }
            };
            let ended = clock::now();
            let mut attempt = Attempt {
                n,
                outcome: Outcome::Ok,
                began,
                ended,
                server: None,
                in_recovery: None,
                code: None,
                text: None,
            };
            match answer {
                Ok(rows) => {
                    attempt.server = rows
                        .first()
                        .and_then(|row| row.try_get::<_, Option<String>>(0).ok().flatten())
                        .and_then(|text| text.parse().ok());
                    if self.journal.identity.mode == Mode::Kept {
                        kept = session.ok();
                    }
                }
                Err(failure) => {
                    attempt.outcome = failure.outcome();
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

/// Makes the table; there is no unique constraint on purpose, so that a row written twice shows.
pub(crate) async fn prepare(door: &Door, table: &str, bound: Duration) -> anyhow::Result<()> {
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {table} (writer text NOT NULL, n bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())"
    );
    let deadline = Instant::now() + bound;
    loop {
        let error = match try_once(door, &sql).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(error.context(format!("make the table {table}")));
        }
        eprintln!("make the table {table}: {error:#}; trying again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn try_once(door: &Door, sql: &str) -> anyhow::Result<()> {
    match door.open().await?.run(sql, &[]).await {
        // "relation already exists, skipping" is a notice; another client may have been quicker.
        Ok(_) => Ok(()),
        Err(Failure::Answered(error)) if error.code().is_some_and(|code| code.code() == "23505") => Ok(()),
        Err(failure) => anyhow::bail!("{}", failure.text()),
    }
}
