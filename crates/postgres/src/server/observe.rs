//! What a running server is doing, as far as it could be seen.
//!
//! Decides nothing. Must never turn a failed look into a fact: what was not seen is `Unknown`, with the reason.
//! Proved by `tests/servers/life.rs`.

use std::time::Duration;

use ha::{Lsn, Timeline};

use super::super::layout::Layout;
use crate::replication::standbys::{Walsender, walsenders};
use crate::session::{ConnectError, Session, SqlError, column, lsn_column};
use crate::walsender::{IdentifyError, identify_system};

/// One look at the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// Nobody listens on the socket. Processes may be left all the same: only the supervisor knows (P7).
    NotListening,
    /// It runs and does not accept connections.
    Starting {
        /// What it says.
        why: String,
    },
    /// It answers, in recovery.
    Standby(Box<Standby>),
    /// It answers, out of recovery.
    Primary(Box<Primary>),
    /// Nobody knows.
    Unknown {
        /// Why not.
        why: String,
    },
}

/// A server in recovery that is consistent (it answers).
#[derive(Debug, Clone, PartialEq)]
pub struct Standby {
    /// When its postmaster started, Unix microseconds: tells one boot of PostgreSQL from the next.
    pub started: i64,
    /// The timeline that it replays.
    pub timeline: Timeline,
    /// Flushed by the walreceiver of this boot; none before the first (P8).
    pub received: Option<Lsn>,
    /// Replayed up to here.
    pub replayed: Option<Lsn>,
    /// There is a walreceiver and it is streaming.
    pub streaming: bool,
    /// The timeline that the walreceiver receives.
    pub received_timeline: Option<Timeline>,
    /// The host that the walreceiver was told: the name that the upstream's certificate carries.
    pub upstream_host: Option<String>,
    /// `primary_conninfo` is not empty.
    pub has_upstream: bool,
    /// Replay is paused or about to be.
    pub paused: bool,
}

/// A server out of recovery.
#[derive(Debug, Clone, PartialEq)]
pub struct Primary {
    /// When its postmaster started, Unix microseconds.
    pub started: i64,
    /// The timeline that it writes.
    pub timeline: Timeline,
    /// The control file's timeline (P22).
    pub control_timeline: Timeline,
    /// Its flush position.
    pub flushed: Lsn,
    /// What `SHOW synchronous_standby_names` says. Proves nothing of what is in force (rule 7a).
    pub names_shown: String,
    /// Client sessions other than the agent's.
    pub clients: i64,
    /// Who streams.
    pub walsenders: Vec<Walsender>,
}

/// Looks at one server again and again over one kept session.
#[derive(Debug)]
pub struct Prober {
    layout: Layout,
    session: Option<Session>,
    /// The last replay timeline that the server named.
    timeline: Option<Timeline>,
}

const QUERY: &str = "\
SELECT pg_is_in_recovery(),
       (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()::text END,
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text END,
       CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END,
       r.status = 'streaming',
       r.received_tli::bigint,
       r.sender_host,
       current_setting('primary_conninfo') <> '',
       CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_lsn()) END,
       (pg_control_checkpoint()).timeline_id::bigint,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn()::text END,
       current_setting('synchronous_standby_names'),
       (SELECT count(*) FROM pg_stat_activity
         WHERE backend_type = 'client backend' AND application_name <> 'matriarch')
  FROM (VALUES (1)) AS one LEFT JOIN pg_stat_wal_receiver AS r ON true";

const WHAT: &str = "observe the server";

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("no session")]
    Connect(#[from] ConnectError),
    #[error("no answer")]
    Sql(#[from] SqlError),
    #[error("no identity")]
    Identify(#[from] IdentifyError),
}

impl Prober {
    /// A prober of this member's server; connects when first asked.
    pub fn new(layout: Layout) -> Self {
        Self { layout, session: None, timeline: None }
    }

    /// Looks once, within about twice `bound`: a kept session that broke is replaced and asked again.
    pub async fn observe(&mut self, bound: Duration) -> Observation {
        let kept = self.session.is_some();
        match self.look(bound).await {
            Ok(observation) => observation,
            Err(error) => {
                self.session = None;
                let error = match error {
                    LookError::Sql(_) | LookError::Identify(_) if kept => match self.look(bound).await {
                        Ok(observation) => return observation,
                        Err(error) => error,
                    },
                    other => other,
                };
                self.session = None;
                match error {
                    LookError::Connect(ConnectError::Refused(_)) => Observation::NotListening,
                    LookError::Connect(ConnectError::Starting(why)) => Observation::Starting { why },
                    other => Observation::Unknown { why: chain(&other) },
                }
            }
        }
    }

    /// The kept session, opened when there is none: for the steps that follow a look.
    pub async fn session(&mut self, bound: Duration) -> Result<&Session, ConnectError> {
        let session = match self.session.take() {
            Some(session) if !session.is_closed() => session,
            _ => Session::open(&self.layout, bound).await?,
        };
        Ok(self.session.insert(session))
    }

    async fn look(&mut self, bound: Duration) -> Result<Observation, LookError> {
        self.session(bound).await?;
        let Some(session) = &self.session else {
            return Ok(Observation::Unknown { why: "no session".to_owned() });
        };
        let row = session.row(WHAT, QUERY, &[]).await?;
        let started = column(WHAT, &row, 1)?;
        if column::<bool>(WHAT, &row, 0)? {
            let streaming = column::<Option<bool>>(WHAT, &row, 5)?.unwrap_or(false);
            let received_timeline = column::<Option<i64>>(WHAT, &row, 6)?.map(timeline).transpose()?;
            // The replay timeline follows the received one; it is asked for until both agree.
            let replay = match self.timeline {
                Some(known) if streaming && received_timeline == Some(known) => known,
                _ => identify_system(&self.layout, bound).await?.timeline,
            };
            self.timeline = Some(replay);
            let pause: Option<String> = column(WHAT, &row, 4)?;
            return Ok(Observation::Standby(Box::new(Standby {
                started,
                timeline: replay,
                received: lsn_column(WHAT, &row, 2)?,
                replayed: lsn_column(WHAT, &row, 3)?,
                streaming,
                received_timeline,
                upstream_host: column(WHAT, &row, 7)?,
                has_upstream: column(WHAT, &row, 8)?,
                paused: pause.is_some_and(|state| state != "not paused"),
            })));
        }
        self.timeline = None;
        let file: String = column::<Option<String>>(WHAT, &row, 9)?.unwrap_or_default();
        let writes = file.get(0..8).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let writes = writes.ok_or(SqlError::Answer { what: WHAT, value: file })?;
        let flushed = lsn_column(WHAT, &row, 11)?
            .ok_or(SqlError::Answer { what: WHAT, value: "no flush position".to_owned() })?;
        Ok(Observation::Primary(Box::new(Primary {
            started,
            timeline: Timeline(writes),
            control_timeline: timeline(column(WHAT, &row, 10)?)?,
            flushed,
            names_shown: column(WHAT, &row, 12)?,
            clients: column(WHAT, &row, 13)?,
            walsenders: walsenders(session).await?,
        })))
    }
}

fn timeline(value: i64) -> Result<Timeline, SqlError> {
    u32::try_from(value).map(Timeline).map_err(|_| SqlError::Answer { what: WHAT, value: value.to_string() })
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
