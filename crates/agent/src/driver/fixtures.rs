//! A cluster of three for unit tests: `pg-0` is this member, `pg-1` and `pg-2` are the others.

use std::collections::BTreeMap;

use ha::announcement::Condition;
use ha::promise::Bootstrap;
use ha::record::LeaderId;
use ha::{
    Announcement, Boot, Decision, Epoch, Gate, Incarnation, Instant, Lsn, MemberId, MemberName, Names, Peer,
    Phase, Postgres, Primary, Promise, Record, RecordView, Route, Settings, Standby, Timeline, Upstream,
    Version, View,
};

pub(crate) fn id(n: u64) -> MemberId {
    MemberId { name: MemberName(format!("pg-{n}")), incarnation: Incarnation(n) }
}

pub(crate) fn record(leader: u64, epoch: u64) -> Record {
    let mut record = Record {
        phase: Phase::Running,
        epoch: Epoch(epoch),
        leader: Some(LeaderId {
            name: id(leader).name,
            pod_uid: format!("uid-{leader}"),
            boot: Boot(leader),
            incarnation: Incarnation(leader),
            node: format!("node-{leader}"),
            stopped: false,
        }),
        timeline: Timeline(1),
        ..Record::uninitialised("cluster")
    };
    record.remember_term(None);
    record
}

pub(crate) fn known(record: Record) -> RecordView {
    RecordView::Known {
        record: Box::new(record),
        version: Version("7".into()),
        lease_uid: "lease".into(),
        confirmed_at: Instant(0),
        changed_at: Instant(0),
    }
}

/// What `pg-0` sees.
pub(crate) fn view(record: Record, postgres: Postgres) -> View {
    View {
        member: id(0),
        pod_uid: "uid-0".into(),
        boot: Boot(0),
        node: "node-0".into(),
        holds_volume_lock: true,
        terminating: false,
        settings: Settings::new((0..3).map(|n| id(n).name)),
        record: known(record),
        promise: Promise { bootstrap: Bootstrap::Member, ..Promise::new(Incarnation(0), "cluster") },
        postgres,
        peers: BTreeMap::new(),
        route: Route::Unknown,
        swapping: false,
    }
}

pub(crate) fn standby(of: Option<u64>) -> Postgres {
    Postgres::Standby(Standby {
        timeline: Timeline(1),
        upstream: of.map(|n| Upstream {
            member: id(n),
            boot: Boot(n),
            address: "10.0.0.1".into(),
            epoch: Epoch(1),
        }),
        streaming: of.is_some(),
        received: None,
        replayed: None,
        end: None,
    })
}

pub(crate) fn primary(gate: Gate) -> Postgres {
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

/// The words of `pg-n`, a plain standby unless changed.
pub(crate) fn peer(n: u64, change: impl FnOnce(&mut Announcement)) -> (MemberName, Peer) {
    let mut other = view(record(0, 1), standby(None));
    (other.member, other.boot, other.pod_uid) = (id(n), Boot(n), format!("uid-{n}"));
    let mut said = Announcement::compose(&other, &Decision::default(), "10.0.0.9", Instant(0));
    said.condition = Condition::Standby;
    change(&mut said);
    (id(n).name, Peer { announcement: said, heard_at: Instant(0), confirmed_at: None, refused: false })
}
