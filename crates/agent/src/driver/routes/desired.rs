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
    for (name, plan) in wanted.members.iter().filter(|(_, plan)| plan.serves_reads) {
        if *name == own.pod {
            if wanted.services.read_includes_master {
                readers.push(own.clone());
            }
            continue;
        }
        let _ = plan;
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
