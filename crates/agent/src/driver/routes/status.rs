//! The leader's part of the resource's status, at transitions only (K19).

use std::collections::BTreeMap;

use api::{LastFailover, MemberRole, MemberSettings, MemberStatus, PostgresCluster, PostgresClusterStatus};
use ha::{Announcement, MemberName, View};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{PartialObjectMeta, PartialObjectMetaExt as _};
use kubernetes::pods::PodFacts;
use kubernetes::{Calls, FieldManager};

use super::desired::Leading;
use crate::peers::Notes;

/// Characters of a refusal that the resource's schema has room for.
const REFUSAL: usize = 1000;

/// What to say. Holds nothing that moves while nothing happens: no position, no lag, no age.
pub(super) fn of(
    leading: &Leading<'_>,
    (view, said): (&View, &Announcement),
    notes: &BTreeMap<MemberName, Notes>,
    wanted: &MemberSettings,
    pods: &BTreeMap<String, PodFacts>,
    last_failover: Option<LastFailover>,
) -> PostgresClusterStatus {
    let number = |n: u64| i64::try_from(n).ok();
    let members = wanted
        .members
        .iter()
        .map(|(name, plan)| {
            let own = *name == view.member.name.0;
            let member = MemberName(name.clone());
            let heard = view.peers.get(&member).map(|peer| &peer.announcement);
            let peer = if own { Some(said) } else { heard };
            let streaming = peer.map(|peer| {
                let sender = leading.primary.walsenders.get(&peer.member.incarnation);
                sender.is_some_and(|sender| sender.streaming)
            });
            MemberStatus {
                name: name.clone(),
                pool: Some(plan.pool.clone()),
                role: Some(if own { MemberRole::Master } else { MemberRole::Replica }),
                timeline: peer.and_then(|peer| peer.timeline).map(|timeline| i64::from(timeline.0)),
                streaming: if own { None } else { streaming },
                sealed_below: peer.and_then(|peer| number(peer.sealed_below.0)),
                version: peer.and_then(|peer| peer.version.clone()),
                pending_restart: peer.and_then(|peer| peer.pending_restart),
                parameters_refused: peer
                    .and_then(|peer| peer.parameters_refused.as_ref())
                    .map(|why| why.chars().take(REFUSAL).collect()),
                diverged_wal: notes.get(&member).map(|notes| notes.diverged_wal.clone()).unwrap_or_default(),
                node: if own {
                    Some(view.node.clone())
                } else {
                    pods.get(name).and_then(|pod| pod.node.clone())
                },
                certificates: peer.and_then(|peer| peer.certificates.clone()),
                zone: plan.zone.clone(),
            }
        })
        .collect();
    PostgresClusterStatus {
        master: Some(view.member.name.0.clone()),
        epoch: number(leading.record.epoch.0),
        timeline: Some(i64::from(leading.record.timeline.0)),
        members,
        last_failover,
        ..PostgresClusterStatus::default()
    }
}

/// What the status says of the last change of master.
pub(super) async fn last_failover(
    calls: &Calls,
    namespace: &str,
    cluster: &str,
) -> anyhow::Result<Option<LastFailover>> {
    let api = kube::Api::<PostgresCluster>::namespaced(calls.client().clone(), namespace);
    let read = kubernetes::bounded("get status", calls.bound(), api.get_status(cluster)).await?;
    Ok(read.status.and_then(|status| status.last_failover))
}

/// Applies it, if the resource still is the one with this UID.
pub(super) async fn apply(
    calls: &Calls,
    namespace: &str,
    cluster: &str,
    uid: &str,
    status: &PostgresClusterStatus,
) -> anyhow::Result<()> {
    let metadata = ObjectMeta {
        name: Some(cluster.to_owned()),
        namespace: Some(namespace.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectMeta::default()
    };
    let object: PartialObjectMeta<PostgresCluster> = metadata.into_request_partial();
    calls.apply_status(FieldManager::AGENT_STATUS, &object, status).await?;
    Ok(())
}
