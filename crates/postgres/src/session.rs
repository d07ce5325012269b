//! The agent's own SQL session over the Unix socket.
//!
//! Decides how the agent talks to its server: as superuser by peer authentication, `search_path` pinned to the catalog,
//! a bound on every statement at both ends, `synchronous_commit = local` (nothing that the agent writes is promised to
//! anybody), statements kept out of the log. Must never use TCP. Proved by `tests/servers/life.rs`.

use std::io;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Client, Config, NoTls, Row};

use crate::layout::Layout;
use crate::settings::SUPERUSER;
use crate::steps::{self, Kind};

/// The agent's application name: never one that counts in `synchronous_standby_names`.
pub const APPLICATION_NAME: &str = "matriarch";

/// Why there is no session. Each is a different fact about the server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens on the socket: the server is not running, or not yet or no longer listening.
    #[error("nobody listens on the socket")]
    Refused(#[source] io::Error),
    /// It runs and does not accept connections: starting, recovering or stopping (SQLSTATE 57P03).
    #[error("the server does not accept connections yet or any more: {0}")]
    Starting(String),
    /// No answer within the bound. Says nothing of the server's state.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It answered otherwise: too many connections, a broken hba file, …
    #[error("the server refused the session")]
    Failed(#[source] tokio_postgres::Error),
}

/// A statement that gave no usable answer. Whether it took effect is unknown.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The server or the connection failed.
    #[error("cannot {what}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// What was said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// No answer within the bound.
    #[error("cannot {what} within {bound:?}")]
    Timeout {
        /// What was tried.
        what: &'static str,
        /// The bound.
        bound: Duration,
    },
    /// The answer is not of the expected form.
    #[error("unexpected answer to {what}: {value:?}")]
    Answer {
        /// What was tried.
        what: &'static str,
        /// What came.
        value: String,
    },
}

impl SqlError {
    /// The SQLSTATE, when the server said one.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Failed { source, .. } => source.code(),
            _ => None,
        }
    }
}

/// A session. Dropping it closes the connection.
#[derive(Debug)]
pub struct Session {
    client: Client,
    driver: JoinHandle<()>,
    bound: Duration,
}

/// What a session is for, where it differs.
#[derive(Debug, Clone)]
pub(crate) struct Flavour<'a> {
    pub(crate) database: &'a str,
    pub(crate) synchronous_commit: &'static str,
    /// The server's own bound of one statement; zero for none.
    pub(crate) statement_timeout: Duration,
}

impl Default for Flavour<'_> {
    fn default() -> Self {
        Self { database: SUPERUSER, synchronous_commit: "local", statement_timeout: Duration::from_secs(60) }
    }
}

impl Session {
    /// Connects to the member's own server within `bound`, which also bounds each later statement.
    pub async fn open(layout: &Layout, bound: Duration) -> Result<Self, ConnectError> {
        Self::open_as(layout, bound, Flavour { statement_timeout: bound, ..Flavour::default() }).await
    }

    /// The same to another database: extensions and rights are per database.
    pub async fn open_database(
        layout: &Layout,
        database: &str,
        bound: Duration,
    ) -> Result<Self, ConnectError> {
        let flavour = Flavour { database, statement_timeout: bound, ..Flavour::default() };
        Self::open_as(layout, bound, flavour).await
    }

    pub(crate) async fn open_as(
        layout: &Layout,
        bound: Duration,
        flavour: Flavour<'_>,
    ) -> Result<Self, ConnectError> {
        let mut config = Config::new();
        config
            .host_path(layout.run())
            .port(layout.port())
            .user(SUPERUSER)
            .dbname(flavour.database)
            .application_name(APPLICATION_NAME)
            .connect_timeout(bound)
            .options(format!(
                "-c search_path=pg_catalog -c statement_timeout={} -c synchronous_commit={} \
                 -c default_transaction_read_only=off -c standard_conforming_strings=on -c lock_timeout=0 \
                 -c row_security=off -c client_min_messages=error -c log_statement=none \
                 -c log_min_duration_statement=-1 -c log_min_error_statement=panic",
                flavour.statement_timeout.as_millis(),
                flavour.synchronous_commit,
            ));
        let connected = tokio::time::timeout(bound, config.connect(NoTls))
            .await
            .map_err(|_| ConnectError::Timeout(bound))?;
        let (client, connection) = connected.map_err(|error| classify(error, bound))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "session ended");
            }
        });
        Ok(Self { client, driver, bound })
    }

    /// True when the connection is known to be gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The bound of each statement.
    pub fn bound(&self) -> Duration {
        self.bound
    }

    /// The same session with another bound for later statements.
    #[must_use]
    pub fn with_bound(mut self, bound: Duration) -> Self {
        self.bound = bound;
        self
    }

    /// All rows.
    pub async fn rows(
        &self,
        what: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, SqlError> {
        self.within(what, self.client.query(sql, parameters)).await
    }

    /// Exactly one row.
    pub async fn row(
        &self,
        what: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, SqlError> {
        self.within(what, self.client.query_one(sql, parameters)).await
    }

    /// The first column of exactly one row.
    pub async fn value<T>(
        &self,
        what: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<T, SqlError>
    where
        T: for<'a> FromSql<'a>,
    {
        column(what, &self.row(what, sql, parameters).await?, 0)
    }

    /// Statements without parameters: DDL, rendered by [`crate::identifier`].
    pub async fn batch(&self, what: &'static str, sql: &str) -> Result<(), SqlError> {
        self.within(what, self.client.batch_execute(sql)).await
    }

    async fn within<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, SqlError> {
        match tokio::time::timeout(self.bound, work).await {
            Ok(Ok(value)) => {
                steps::took(Kind::Statement, || what.to_owned());
                Ok(value)
            }
            Ok(Err(source)) => Err(SqlError::Failed { what, source }),
            Err(_) => Err(SqlError::Timeout { what, bound: self.bound }),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The driver says farewell and ends once the client is dropped, unless an answer is still outstanding: a server
        // that never gives it must not hold the task.
        let farewell = self.driver.abort_handle();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !self.driver.is_finished() => {
                runtime.spawn(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    farewell.abort();
                });
            }
            _ => farewell.abort(),
        }
    }
}

/// One column of a row.
pub(crate) fn column<T>(what: &'static str, row: &Row, index: usize) -> Result<T, SqlError>
where
    T: for<'a> FromSql<'a>,
{
    row.try_get(index).map_err(|source| SqlError::Failed { what, source })
}

/// A position in its text form; NULL is none.
pub(crate) fn lsn_column(what: &'static str, row: &Row, index: usize) -> Result<Option<ha::Lsn>, SqlError> {
    let text: Option<String> = column(what, row, index)?;
    text.map(|t| t.parse().map_err(|_| SqlError::Answer { what, value: t })).transpose()
}

fn classify(error: tokio_postgres::Error, bound: Duration) -> ConnectError {
    if let Some(db) = error.as_db_error() {
        if *db.code() == SqlState::CANNOT_CONNECT_NOW {
            return ConnectError::Starting(db.message().to_owned());
        }
        return ConnectError::Failed(error);
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(&error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    return ConnectError::Refused(io::Error::new(io.kind(), io.to_string()));
                }
                io::ErrorKind::TimedOut => return ConnectError::Timeout(bound),
                _ => {}
            }
        }
        cause = inner.source();
    }
    ConnectError::Failed(error)
}
