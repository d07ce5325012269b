//! Who should be in which slice.

use std::collections::BTreeMap;
use std::time::Duration;

use api::MemberSettings;
use api::names::{labels, ports};
use ha::{Condition, Epoch, Gate, Instant, MemberName, Postgres, Primary, Record, RecordView, View};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kubernetes::pods::PodFacts;
use kubernetes::slices::{Family, Route, Target};

/// A follower that was not heard for so long is led to no more.
const SILENT: Duration = Duration::from_secs(5);

/// Both Services' routes.
#[derive(Debug, Clone)]
pub(super) struct Desired {
    pub(super) write: Route,
    pub(super) read: Route,
    pub(super) families: Vec<Family>,
}

/// The routes of this cluster's Services.
pub(super) fn routes(wanted: &MemberSettings, cluster: &str, namespace: &str) -> Desired {
    let owner = OwnerReference {
        api_version: format!("{}/{}", api::GROUP, api::VERSION),
        kind: "PostgresCluster".to_owned(),
        name: wanted.cluster.name.clone(),
        uid: wanted.cluster.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let route = |service: &str| Route {
        namespace: namespace.to_owned(),
        service: service.to_owned(),
        port_name: ports::POSTGRES_NAME.to_owned(),
        port: ports::POSTGRES,
        owner: owner.clone(),
        labels: labels::of_cluster(cluster),
    };
    let families = wanted
        .services
        .families
        .iter()
        .map(|family| if family == Family::V6.as_str() { Family::V6 } else { Family::V4 })
        .collect();
    Desired { write: route(&wanted.services.write), read: route(&wanted.services.read), families }
}

/// This very boot leads with an open gate, and `pgwrite` already points here.
pub(super) struct Leading<'a> {
    pub(super) record: &'a Record,
    pub(super) primary: &'a Primary,
}

impl<'a> Leading<'a> {
    pub(super) fn of(view: &'a View) -> Option<Self> {
        let RecordView::Known { record, .. } = &view.record else { return None };
        let Postgres::Primary(primary) = &view.postgres else { return None };
        let leader = record.leader.as_ref()?;
        let here =
            leader.member() == view.member && leader.boot == view.boot && leader.pod_uid == view.pod_uid;
        let routed = view.route == ha::Route::Here { epoch: record.epoch };
        (here && routed && primary.gate == Gate::Open).then_some(Self { record, primary })
    }
}

/// The newest epoch that this member has heard of.
pub(super) fn known_epoch(view: &View) -> Epoch {
    match &view.record {
        RecordView::Known { record, .. } => record.epoch,
        _ => view.promise.last_record.as_ref().map_or(view.promise.last_epoch, |record| record.epoch),
    }
}

/// The followers that stream within `maxLag`, by name.
pub(super) fn readers(
    leading: &Leading<'_>,
    view: &View,
    wanted: &MemberSettings,
    pods: &BTreeMap<String, PodFacts>,
    own: &Target,
    now: Instant,
) -> Vec<Target> {
    let mut readers = Vec::new();
    for (name, _) in wanted.members.iter().filter(|(_, plan)| plan.serves_reads) {
        if *name == own.pod {
            if wanted.services.read_includes_master {
                readers.push(own.clone());
            }
            continue;
        }
        let Some(peer) = view.peers.get(&MemberName(name.clone())) else { continue };
        let Some(pod) = pods.get(name).filter(|pod| pod.uid == peer.announcement.pod_uid) else { continue };
        let Some(sender) = leading.primary.walsenders.get(&peer.announcement.member.incarnation) else {
            continue;
        };
        let Some(flushed) = sender.flushed else { continue };
        let lag = leading.primary.flushed.0.saturating_sub(flushed.0);
        let serves = peer.announcement.condition == Condition::Standby
            && sender.streaming
            && lag <= wanted.services.read_max_lag_bytes
            && now.since(peer.heard_at) < SILENT
            && !pod.terminating
            && !peer.announcement.terminating;
        if serves {
            readers.push(Target {
                pod: name.clone(),
                uid: pod.uid.clone(),
                addresses: pod.addresses.clone(),
                node: pod.node.clone().unwrap_or_default(),
                zone: None,
            });
        }
    }
    readers
}

#[cfg(test)]
mod tests {
    use ha::{Incarnation, Lsn, Walsender};

    use super::super::super::fixtures;
    use super::*;

    const MAX_LAG: u64 = 1000;
    const NOW: Instant = Instant(60_000_000_000);

    fn wanted() -> MemberSettings {
        let plan = |name: &str| serde_json::json!({"host": name});
        serde_json::from_value(serde_json::json!({
            "format": 1, "generation": 1, "version": 17,
            "cluster": {"name": "pg", "namespace": "shop", "uid": "u", "identity": "u"},
            "members": {"pg-0": plan("pg-0"), "pg-1": plan("pg-1"), "pg-2": plan("pg-2")},
            "services": {"write": "pg-pgwrite", "read": "pg-pgread", "readMaxLagBytes": MAX_LAG},
        }))
        .unwrap()
    }

    fn pod(n: u64) -> (String, PodFacts) {
        let name = format!("pg-{n}");
        let facts = PodFacts {
            name: name.clone(),
            uid: format!("uid-{n}"),
            addresses: vec!["10.0.0.9".parse().unwrap()],
            node: None,
            terminating: false,
            finished: false,
            ready: Some(true),
            role: None,
        };
        (name, facts)
    }

    fn sender(flushed: u64) -> Walsender {
        Walsender { streaming: true, flushed: Some(Lsn(flushed)) }
    }

    /// Everything that `readers` looks at; each case changes one thing.
    struct Seen {
        view: View,
        primary: Primary,
        wanted: MemberSettings,
        pods: BTreeMap<String, PodFacts>,
    }

    fn readers_of(change: impl FnOnce(&mut Seen)) -> Vec<String> {
        let record = fixtures::record(0, 1);
        let postgres = fixtures::primary(Gate::Open);
        let Postgres::Primary(primary) = postgres.clone() else { unreachable!("a primary") };
        let mut seen = Seen {
            view: fixtures::view(record.clone(), postgres),
            primary: *primary,
            wanted: wanted(),
            pods: (0..3).map(pod).collect(),
        };
        seen.primary.flushed = Lsn(10_000);
        for n in [1, 2] {
            let (name, mut peer) = fixtures::peer(n, |_| {});
            peer.heard_at = NOW;
            seen.view.peers.insert(name, peer);
            seen.primary.walsenders.insert(Incarnation(n), sender(10_000));
        }
        change(&mut seen);
        let own = Target {
            pod: "pg-0".into(),
            uid: "uid-0".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            node: "node-0".into(),
            zone: None,
        };
        let leading = Leading { record: &record, primary: &seen.primary };
        let readers = readers(&leading, &seen.view, &seen.wanted, &seen.pods, &own, NOW);
        readers.into_iter().map(|target| target.pod).collect()
    }

    fn sender_of_one(seen: &mut Seen) -> &mut Walsender {
        seen.primary.walsenders.get_mut(&Incarnation(1)).unwrap()
    }

    fn of_one(seen: &mut Seen) -> &mut ha::Peer {
        seen.view.peers.get_mut(&MemberName("pg-1".into())).unwrap()
    }

    #[test]
    fn k4_nothing_else_is_said_before_pgwrite_leads_here() {
        let mut view = fixtures::view(fixtures::record(0, 1), fixtures::primary(Gate::Open));
        for route in [ha::Route::Unknown, ha::Route::Elsewhere, ha::Route::Here { epoch: Epoch(7) }] {
            view.route = route;
            assert!(Leading::of(&view).is_none(), "{:?}", view.route);
        }
        view.route = ha::Route::Here { epoch: Epoch(1) };
        assert!(Leading::of(&view).is_some());
        view.postgres = fixtures::primary(Gate::Closed);
        assert!(Leading::of(&view).is_none(), "nor before the gate is open");
    }

    #[test]
    fn k1_pgread_leads_to_whoever_streams_within_max_lag_and_nobody_else() {
        type Change = fn(&mut Seen);
        let both = ["pg-1", "pg-2"].as_slice();
        let without_one = ["pg-2"].as_slice();
        let cases: [(&str, Change, &[&str]); 13] = [
            ("all stream", |_| {}, both),
            ("lag at the bound", |seen| *sender_of_one(seen) = sender(9_000), both),
            ("lag above it", |seen| *sender_of_one(seen) = sender(8_999), without_one),
            ("no flush position", |seen| sender_of_one(seen).flushed = None, without_one),
            ("catching up", |seen| sender_of_one(seen).streaming = false, without_one),
            (
                "no walsender",
                |seen| seen.primary.walsenders = [(Incarnation(2), sender(10_000))].into(),
                without_one,
            ),
            ("silent", |seen| of_one(seen).heard_at = Instant(55_000_000_000), without_one),
            ("says that it leaves", |seen| of_one(seen).announcement.terminating = true, without_one),
            ("is deleted", |seen| seen.pods.get_mut("pg-1").unwrap().terminating = true, without_one),
            (
                "another pod of its name",
                |seen| seen.pods.get_mut("pg-1").unwrap().uid = "new".into(),
                without_one,
            ),
            ("still starting", |seen| of_one(seen).announcement.condition = Condition::Starting, without_one),
            (
                "serves no reads",
                |seen| seen.wanted.members.get_mut("pg-1").unwrap().serves_reads = false,
                without_one,
            ),
            (
                "includeMaster",
                |seen| seen.wanted.services.read_includes_master = true,
                &["pg-0", "pg-1", "pg-2"],
            ),
        ];
        for (what, change, expected) in cases {
            assert_eq!(readers_of(change), expected, "{what}");
        }
    }
}
