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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use ha::{
        Boot, Epoch, Incarnation, Instant, Lsn, MemberId, MemberName, Names, Primary, Promise, Route,
        Settings, Standby, Timeline, Upstream, Version,
    };

    fn member(ordinal: u64) -> MemberId {
        MemberId { name: MemberName(format!("pg-{ordinal}")), incarnation: Incarnation(ordinal) }
    }

    fn record(leader: Option<u64>) -> RecordView {
        let mut record = Record::uninitialised("cluster");
        record.epoch = Epoch(3);
        record.leader = leader.map(|ordinal| {
            let MemberId { name, incarnation } = member(ordinal);
            let leader = serde_json::json!({
                "name": name, "incarnation": incarnation, "podUid": "u", "boot": Boot(1), "node": "n",
            });
            serde_json::from_value(leader).unwrap()
        });
        RecordView::Known {
            record: Box::new(record),
            version: Version("1".into()),
            lease_uid: "l".into(),
            confirmed_at: Instant(0),
            changed_at: Instant(0),
        }
    }

    fn view(record: RecordView, postgres: Postgres) -> View {
        View {
            member: member(0),
            pod_uid: "u".into(),
            boot: Boot(1),
            node: "n".into(),
            holds_volume_lock: true,
            terminating: false,
            settings: Settings::new([member(0).name]),
            record,
            promise: Promise::new(Incarnation(0), "cluster"),
            postgres,
            peers: BTreeMap::new(),
            route: Route::Unknown,
            swapping: false,
        }
    }

    fn standby(of: Option<u64>) -> Postgres {
        Postgres::Standby(Standby {
            timeline: Timeline(1),
            upstream: of.map(|ordinal| Upstream {
                member: member(ordinal),
                boot: Boot(1),
                address: "10.0.0.1".into(),
                epoch: Epoch(3),
            }),
            streaming: false,
            received: None,
            replayed: None,
            end: None,
        })
    }

    fn primary(gate: Gate) -> Postgres {
        Postgres::Primary(Box::new(Primary {
            timeline: Timeline(1),
            control_timeline: Timeline(1),
            gate,
            names: Names::Unknown,
            flushed: Lsn(1),
            first_record: Lsn(1),
            fence_xid: None,
            walsenders: BTreeMap::new(),
            prepared: [].into(),
            provisioned: true,
        }))
    }

    fn unknown() -> RecordView {
        RecordView::Unknown { why: "api server".into() }
    }

    #[test]
    fn k7_a_standby_is_ready_without_a_master_and_without_an_api_server_but_not_when_it_follows_nobody() {
        let ready = |record, postgres| readiness(&view(record, postgres)).is_ready();
        assert!(ready(record(Some(1)), standby(Some(1))));
        assert!(ready(record(None), standby(None)));
        assert!(ready(unknown(), standby(Some(1))));
        assert!(!ready(record(Some(2)), standby(Some(1))), "of the former leader");
        assert!(!ready(record(Some(1)), standby(None)));
        let mut electing = view(record(Some(1)), standby(None));
        electing.promise.sealed_below = Epoch(4);
        assert!(readiness(&electing).is_ready(), "sealed for an election");
    }

    #[test]
    fn k7_a_master_is_ready_when_it_is_open_and_recorded() {
        let ready = |record, postgres| readiness(&view(record, postgres)).is_ready();
        assert!(ready(record(Some(0)), primary(Gate::Open)));
        assert!(!ready(record(Some(0)), primary(Gate::Closed)));
        assert!(!ready(record(Some(1)), primary(Gate::Open)));
        assert!(ready(unknown(), primary(Gate::Open)), "the API server alone stops nobody");
        let mut reborn = view(record(Some(0)), primary(Gate::Open));
        reborn.boot = Boot(2);
        assert!(!readiness(&reborn).is_ready(), "recorded in another life");
    }

    #[test]
    fn k7_recovery_and_cloning_are_not_ready() {
        for postgres in [Postgres::Starting, Postgres::Absent, Postgres::Busy { with: "clone".into() }] {
            assert!(!readiness(&view(record(Some(1)), postgres)).is_ready());
        }
    }
}
