//! One client with one transaction: what it was told, nothing else.
//!
//! Decides what became of a commit by what the client saw: an answer, an answer with a warning (P2), or none. Must never
//! take a broken connection for a refusal.

use std::future::poll_fn;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use sim::driver::Outcome;
use tokio_postgres::{AsyncMessage, NoTls};

/// What the client was told.
#[derive(Debug, Default)]
struct Told {
    warned: bool,
    answer: Option<bool>,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    /// The server.
    pub on: usize,
    /// Its backend.
    pub pid: i32,
    /// Where its row begins; its commit is the next record.
    pub lsn: Option<u64>,
    session: Arc<tokio_postgres::Client>,
    told: Arc<Mutex<Told>>,
    asked: bool,
}

/// A session over the socket in this directory; its notices go to `notice`.
pub(crate) async fn connect(
    run: &Path,
    name: &str,
    notice: impl Fn(&str) + Send + 'static,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(run).port(postgres::layout::PORT).user("postgres").application_name(name);
    let (client, mut connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(text) = message {
                notice(text.message());
            }
        }
    });
    Ok(client)
}

impl Client {
    /// Opens a transaction on this server that writes this row.
    pub(crate) async fn begin(row: u32, on: usize, run: &Path) -> Result<Self> {
        let told = Arc::new(Mutex::new(Told::default()));
        let hears = told.clone();
        let notice = move |text: &str| {
            if text.contains("canceling wait for synchronous replication") {
                hears.lock().unwrap_or_else(PoisonError::into_inner).warned = true;
            }
        };
        let session = connect(run, "client", notice).await.context("opening a client's session")?;
        let pid = session.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
        session.batch_execute(&format!("BEGIN; INSERT INTO t (id) VALUES ({row})")).await?;
        Ok(Self { on, pid, lsn: None, session: Arc::new(session), told, asked: false })
    }

    /// Asks for the commit and waits for nothing.
    pub(crate) async fn commit(&mut self, row: u32, weak: bool) -> Result<()> {
        if weak {
            self.session.batch_execute("SET LOCAL synchronous_commit TO local").await?;
        }
        let write = format!(
            "UPDATE t SET written = pg_current_wal_insert_lsn() WHERE id = {row} \
             RETURNING (written - '0/0')::bigint"
        );
        let lsn: i64 = self.session.query_one(&write, &[]).await?.try_get(0)?;
        self.lsn = u64::try_from(lsn).ok();
        self.asked = true;
        let (session, told) = (self.session.clone(), self.told.clone());
        tokio::spawn(async move {
            let answer = session.batch_execute("COMMIT").await.is_ok();
            told.lock().unwrap_or_else(PoisonError::into_inner).answer = Some(answer);
        });
        Ok(())
    }

    /// What became of it; `waits` tells whether its backend waits for standbys. None while nobody can tell.
    pub(crate) fn outcome(&self, waits: bool) -> Option<Outcome> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match told.answer {
            Some(true) if told.warned => Some(Outcome::Warned),
            Some(true) => Some(Outcome::Committed),
            Some(false) => Some(Outcome::Lost),
            None if self.asked => waits.then_some(Outcome::Waits),
            None if self.session.is_closed() => Some(Outcome::Lost),
            None => Some(Outcome::Open),
        }
    }
}
