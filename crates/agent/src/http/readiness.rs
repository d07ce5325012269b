//! K7: Postgres answers and follows the record.
//!
//! It does not drop because there is no master (a standby that sealed itself for an election goes on serving reads),
//! nor for lag (that removes from `pgread`), nor because the API server cannot be read.

use ha::{Gate, Postgres, Record, RecordView, View};
use serde::Serialize;

/// Whether this member serves clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Readiness {
    /// It does.
    Ready,
    /// It does not.
    NotReady {
        /// Why not, for people.
        why: String,
    },
}

impl Readiness {
    /// Whether it does.
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }
}

/// Decides readiness from what the driver knows.
pub fn readiness(view: &View) -> Readiness {
    let record = match &view.record {
        RecordView::Known { record, .. } => Some(record.as_ref()),
        _ => view.promise.last_record.as_ref(),
    };
    let why = match &view.postgres {
        Postgres::Unknown { why } => format!("it is unknown what PostgreSQL does: {why}"),
        Postgres::Absent => "there is no data yet".to_owned(),
        Postgres::Busy { with } => format!("busy with {with}"),
        Postgres::Stopped(_) => "PostgreSQL is stopped".to_owned(),
        Postgres::Starting => "PostgreSQL is starting".to_owned(),
        Postgres::Primary(primary) => match record {
            Some(record) if !leads(view, record) => {
                "out of recovery, but the record names another".to_owned()
            }
            _ if primary.gate == Gate::Closed => "promoted, and not open to clients yet".to_owned(),
            _ => return Readiness::Ready,
        },
        Postgres::Standby(standby) => {
            let Some(record) = record else { return Readiness::Ready };
            let Some(leader) = &record.leader else { return Readiness::Ready };
            let electing = view.promise.sealed_below > record.epoch;
            match &standby.upstream {
                Some(upstream) if upstream.member == leader.member() => return Readiness::Ready,
                Some(upstream) => {
                    format!("follows {}, not the recorded {}", upstream.member, leader.member())
                }
                None if electing => return Readiness::Ready,
                None => format!("does not follow {} yet", leader.member()),
            }
        }
    };
    Readiness::NotReady { why }
}

fn leads(view: &View, record: &Record) -> bool {
    record.leader.as_ref().is_some_and(|leader| leader.member() == view.member && leader.boot == view.boot)
}
