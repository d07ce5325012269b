//! Looks at one member at a steady pace, over one session as long as that lasts: is its listener up, what role does it
//! say it has, on which timeline?
//!
//! A look takes as long as its bound at most and never waits for another; a member that does not answer is looked at
//! again on a new connection, since a session may be stuck where its server is not.

pub(crate) mod observation;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::clock;
use crate::outcome::Failure;
use crate::session::{Door, Session};
use observation::{Listener, Look, Observations, Role, Run};

/// A standby's timeline is that of its last restart point or beyond.
const SQL: &str = "SELECT pg_catalog.host(pg_catalog.inet_server_addr()), pg_catalog.inet_server_port(), recovery, \
     CASE WHEN recovery THEN (SELECT greatest(c.timeline_id, r.min_recovery_end_timeline) \
       FROM pg_catalog.pg_control_checkpoint() AS c, pg_catalog.pg_control_recovery() AS r) \
     ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)) \
       ::pg_catalog.bit(32)::int4 END \
     FROM (SELECT pg_catalog.pg_is_in_recovery() AS recovery OFFSET 0) AS s";
/// For a server that does not tell its timeline.
const PLAIN: &str = "SELECT pg_catalog.host(pg_catalog.inet_server_addr()), pg_catalog.inet_server_port(), \
     pg_catalog.pg_is_in_recovery(), NULL::int4";

/// An observer of one member.
pub(crate) struct Observer {
    /// Where it looks; its bounds are those of a look.
    pub(crate) door: Door,
    /// What it tells.
    pub(crate) log: Arc<Observations>,
    /// The pace.
    pub(crate) every: Duration,
}

impl Observer {
    /// Looks until `stop` says true. Fails only when the log cannot be written.
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut kept = None;
        let mut sql = SQL;
        while !*stop.borrow() {
            let start = Instant::now();
            let began = clock::now();
            let seen = self.look(&mut kept, &mut sql).await;
            self.log.add(Run::ended_now(began, seen))?;
            sleep_until(start + self.every).await;
        }
        self.log.finish()
    }

    async fn look(&self, kept: &mut Option<Session>, sql: &mut &'static str) -> Look {
        let session = match kept.take() {
            Some(session) if !session.is_closed() => session,
            _ => match self.door.open().await {
                Ok(session) => session,
                Err(error) => return self.closed(&error).await,
            },
        };
        match session.run(sql, &[]).await {
            Ok(rows) => {
                *kept = Some(session);
                rows.first().map_or_else(|| silent(Listener::Up), answered)
            }
            // A promotion between two calls of one statement, or a server that tells no timeline at all.
            Err(Failure::Answered(error)) if error.as_db_error().is_some() => {
                let code = error.code().map(|code| code.code().to_owned());
                if code.as_deref().is_some_and(|code| code.starts_with("42") || code.starts_with("0A")) {
                    *sql = PLAIN;
                }
                Look { code, ..silent(Listener::Up) }
            }
            Err(_) => silent(self.knock().await),
        }
    }

    /// Why there is no session.
    async fn closed(&self, error: &anyhow::Error) -> Look {
        let answer = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>())
            .and_then(tokio_postgres::Error::code);
        match answer {
            Some(code) => Look { code: Some(code.code().to_owned()), ..silent(Listener::Up) },
            None => silent(self.knock().await),
        }
    }

    async fn knock(&self) -> Listener {
        let knock = async { Ok::<_, anyhow::Error>(TcpStream::connect(self.door.address().await?).await) };
        match timeout(self.door.bounds.connect, knock).await {
            Err(_) => Listener::Timeout,
            Ok(Err(_)) => Listener::Unknown,
            Ok(Ok(Ok(_))) => Listener::Up,
            Ok(Ok(Err(error))) => match error.kind() {
                ErrorKind::ConnectionRefused => Listener::Refused,
                ErrorKind::TimedOut => Listener::Timeout,
                _ => Listener::Unknown,
            },
        }
    }
}

fn silent(listener: Listener) -> Look {
    Look { listener, role: Role::Unknown, server: None, port: None, timeline: None, code: None }
}

fn answered(row: &tokio_postgres::Row) -> Look {
    let number = |index| row.try_get::<_, Option<i32>>(index).ok().flatten();
    Look {
        listener: Listener::Up,
        role: match row.try_get(2) {
            Ok(true) => Role::Standby,
            Ok(false) => Role::Master,
            Err(_) => Role::Unknown,
        },
        server: row.try_get::<_, Option<&str>>(0).ok().flatten().and_then(|text| text.parse().ok()),
        port: number(1).and_then(|port| u16::try_from(port).ok()),
        timeline: number(3).map(i32::cast_unsigned),
        code: None,
    }
}
