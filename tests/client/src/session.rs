//! One session, with every statement bounded and every warning noticed.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::error::Severity;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Row};

use crate::outcome::Failure;
use crate::target::{Resolver, Target};
use crate::tls::Roots;

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

    /// The same through another host name.
    pub(crate) fn through(&self, host: &str) -> Self {
        Self {
            target: self.target.through(host),
            bounds: self.bounds,
            tls: self.tls.clone(),
            resolver: Resolver::default(),
        }
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
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn take(&self) -> Vec<String> {
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
            texts.push(format!("{} {}", notice.code().code(), notice.message()));
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
        match self.warnings.take().pop() {
            Some(text) => Err(Failure::Warned(text)),
            None => Ok(rows),
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
