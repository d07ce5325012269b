//! One session, with every statement bounded and every warning noticed.

pub(crate) mod target;
pub(crate) mod tls;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::error::Severity;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Row};

use crate::outcome::Failure;
use target::{Resolver, Target};
use tls::Roots;

/// The bounds of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// For the whole of connecting: name, TCP, TLS, authentication.
    pub(crate) connect: Duration,
    /// For one statement.
    pub(crate) statement: Duration,
}

/// Makes sessions at one target.
pub(crate) struct Door {
    /// Where.
    pub(crate) target: Target,
    /// How long anything may take.
    pub(crate) bounds: Bounds,
    tls: Option<Roots>,
    resolver: Resolver,
}

impl Door {
    /// A door to this target; without TLS only where the URI says so.
    pub(crate) fn new(target: Target, tls: Option<Roots>, bounds: Bounds) -> anyhow::Result<Self> {
        anyhow::ensure!(!target.verify || tls.is_some(), "sslmode=verify-full needs --ca-file");
        Ok(Self { target, bounds, tls, resolver: Resolver::default() })
    }

    /// The same through another host name, or `host:port`.
    pub(crate) fn through(&self, host: &str) -> Self {
        Self {
            target: self.target.through(host),
            bounds: self.bounds,
            tls: self.tls.clone(),
            resolver: Resolver::default(),
        }
    }

    /// The same through another host, and for ever at the address that its name has first.
    pub(crate) fn pinned(&self, host: &str) -> Self {
        Self { resolver: Resolver::once(), ..self.through(host) }
    }

    /// The same with another bound for both.
    pub(crate) fn within(self, bound: Duration) -> Self {
        Self { bounds: Bounds { connect: bound, statement: bound }, ..self }
    }

    /// Where the next session would go.
    pub(crate) async fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::new(self.resolver.resolve(&self.target).await?, self.target.port))
    }

    /// Opens a session within the bound.
    pub(crate) async fn open(&self) -> anyhow::Result<Session> {
        tokio::time::timeout(self.bounds.connect, self.connect())
            .await
            .with_context(|| format!("connect to {}: no session in time", self.target.host))?
            .with_context(|| format!("connect to {}", self.target.host))
    }

    async fn connect(&self) -> anyhow::Result<Session> {
        let config = self.target.at(self.resolver.resolve(&self.target).await?);
        let warnings = Warnings::default();
        let (client, driver) = match &self.tls {
            Some(roots) if self.target.verify => {
                let (client, connection) = config.connect(roots.now()?).await?;
                (client, tokio::spawn(drive(connection, warnings.clone())))
            }
            _ => {
                let (client, connection) = config.connect(NoTls).await?;
                (client, tokio::spawn(drive(connection, warnings.clone())))
            }
        };
        Ok(Session { client, driver, warnings, bound: self.bounds.statement })
    }
}

#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<(String, String)>>>);

impl Warnings {
    fn take(&self) -> Vec<(String, String)> {
        self.0.lock().map(|mut texts| std::mem::take(&mut *texts)).unwrap_or_default()
    }
}

/// A notice reaches us here before the answer that follows it reaches the caller: both come through this loop, in order.
async fn drive<S, T>(mut connection: Connection<S, T>, warnings: Warnings)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        if let AsyncMessage::Notice(notice) = message
            && notice.parsed_severity().is_none_or(|severity| severity == Severity::Warning)
            && let Ok(mut texts) = warnings.0.lock()
        {
            texts.push((notice.code().code().to_owned(), notice.message().to_owned()));
        }
    }
}

/// An open session. Dropping it closes the socket at once.
pub(crate) struct Session {
    client: Client,
    driver: JoinHandle<()>,
    warnings: Warnings,
    bound: Duration,
}

impl Session {
    /// Runs one autocommitted statement within the bound.
    ///
    /// After [`Failure::TimedOut`] the session is out of step and must be dropped.
    pub(crate) async fn run(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Failure> {
        self.warnings.take();
        let rows = tokio::time::timeout(self.bound, self.client.query_typed(sql, parameters))
            .await
            .map_err(|_| Failure::TimedOut)?
            .map_err(Failure::Answered)?;
        self.unless_warned(rows)
    }

    /// Runs statements without parameters as one message within the bound; as [`Session::run`] in everything else.
    pub(crate) async fn batch(&self, sql: &str) -> Result<(), Failure> {
        self.warnings.take();
        tokio::time::timeout(self.bound, self.client.batch_execute(sql))
            .await
            .map_err(|_| Failure::TimedOut)?
            .map_err(Failure::Answered)?;
        self.unless_warned(())
    }

    fn unless_warned<T>(&self, answer: T) -> Result<T, Failure> {
        match self.warnings.take().pop() {
            Some((code, text)) => Err(Failure::Warned { code, text }),
            None => Ok(answer),
        }
    }

    /// Whether the connection is known to be gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
