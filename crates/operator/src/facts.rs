//! From what was read to what the plan rests on. No client.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use api::{PostgresCluster, names, names::labels};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;
use kubernetes::{nodes::NodeSeen, pods::PodFacts, record::RecordRead};

use crate::{
    build::pod::hash_of,
    dereference::{Observed, is_unscheduled},
    plan::{
        Facts, Member,
        replace::{Claim, Home},
        template::FAILING_AFTER,
    },
};

/// Reasons of a waiting container that rarely end by themselves.
const STUCK: [&str; 9] = [
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// What the plan rests on.
pub fn facts(cluster: &PostgresCluster, observed: &Observed, now: Timestamp) -> Facts {
    let record = match &observed.record {
        RecordRead::Known(snapshot) => Some(snapshot.record()),
        _ => None,
    };
    let name = cluster.name_any();
    let electorates = record.map(|record| record.electorates.as_slice()).unwrap_or_default();
    let names_in = |electorate: &ha::Electorate| {
        electorate.members.iter().map(|member| member.name.0.clone()).collect::<Vec<_>>()
    };
    let current = electorates.last();
    let in_current_electorate = match record {
        Some(record) if record.lease_millis.is_some() => streaming(cluster, record),
        _ => current.map(names_in).unwrap_or_default().into_iter().collect(),
    };
    let replicas = observed
        .stateful_set
        .as_ref()
        .and_then(|set| set.spec.as_ref()?.replicas)
        .and_then(|replicas| u32::try_from(replicas).ok());
    Facts {
        instances: u32::try_from(cluster.spec.instances).unwrap_or(1).max(1),
        replicas,
        members: members(cluster, observed, now),
        leader: record.and_then(|record| record.leader.as_ref()).map(|leader| leader.name.0.clone()),
        uninitialised: record.is_some_and(|record| record.phase == ha::Phase::Uninitialised),
        in_any_electorate: electorates.iter().flat_map(names_in).collect(),
        in_current_electorate,
        acks: current.map(|electorate| electorate.acks).unwrap_or_default(),
        when_short: cluster.spec.durability.when_short,
        certificates: certificates(cluster, replicas),
        replace_after: cluster.spec.failover.replace_after.map(api::Duration::as_std),
        zones: zones(observed),
        cluster: name,
    }
}

/// In asynchronous mode no electorate is recorded. Whoever has a copy that is kept up is whom the master of this very term
/// sees streaming; what another master once saw says nothing.
fn streaming(cluster: &PostgresCluster, record: &ha::Record) -> BTreeSet<String> {
    let Some(status) = &cluster.status else { return BTreeSet::new() };
    let leader = record.leader.as_ref().map(|leader| leader.name.0.as_str());
    let of_this_term = status.epoch.is_some() && status.epoch == i64::try_from(record.epoch.0).ok();
    status
        .members
        .iter()
        .filter(|member| of_this_term && member.streaming == Some(true) && leader != Some(&member.name))
        .map(|member| member.name.clone())
        .collect()
}

/// The identity of the data: the record's, else that of the claims, else none.
pub fn identity(observed: &Observed) -> Option<String> {
    if let RecordRead::Known(snapshot) = &observed.record {
        return Some(snapshot.record().cluster_uid.clone());
    }
    let of_claim = |claim: &k8s_openapi::api::core::v1::PersistentVolumeClaim| {
        claim.metadata.labels.as_ref()?.get(labels::CLUSTER_UID).cloned()
    };
    observed.claims.iter().find_map(of_claim)
}

/// Where a volume is that can be used on one host only.
pub fn home(host: &str, node: &NodeSeen) -> Home {
    match node {
        NodeSeen::Gone => Home::Gone(host.to_owned()),
        NodeSeen::There(node) if node.out_of_service => Home::OutOfService(host.to_owned()),
        NodeSeen::There(_) => Home::On(host.to_owned()),
        NodeSeen::Unknown => Home::Anywhere,
    }
}

/// Where a member's volume is, as far as that holds it back.
fn claim(observed: &Observed, pod: &str) -> Option<Claim> {
    let name = names::data_claim(pod);
    let claim = observed.claims.iter().find(|claim| claim.metadata.name.as_deref() == Some(name.as_str()))?;
    let home = observed.hosts.get(&name).map(|(host, node)| home(host, node)).unwrap_or_default();
    Some(Claim {
        uid: claim.metadata.uid.clone()?,
        bound: claim.spec.as_ref().is_some_and(|spec| spec.volume_name.is_some()),
        terminating: claim.metadata.deletion_timestamp.is_some(),
        home,
    })
}

fn zones(observed: &Observed) -> BTreeMap<String, String> {
    let zone = |pod: &Pod| {
        let node = pod.spec.as_ref()?.node_name.as_ref()?;
        let NodeSeen::There(node) = observed.nodes.get(node)? else { return None };
        Some((pod.metadata.name.clone()?, node.zone.clone()?))
    };
    observed.pods.iter().filter_map(zone).collect()
}

/// A member whose pod is gone has said what its volume still holds; it starts with that.
fn certificates(cluster: &PostgresCluster, replicas: Option<u32>) -> BTreeMap<String, Option<String>> {
    let reported = cluster.status.as_ref().map(|status| status.members.as_slice()).unwrap_or_default();
    let wanted = u32::try_from(cluster.spec.instances).unwrap_or(1);
    (0..wanted.max(replicas.unwrap_or_default()))
        .map(|ordinal| {
            let name = names::pod(&cluster.name_any(), ordinal);
            let said = reported.iter().find(|member| member.name == name);
            let said = said.and_then(|member| member.certificates.clone());
            (name, said)
        })
        .collect()
}

fn members(cluster: &PostgresCluster, observed: &Observed, now: Timestamp) -> BTreeMap<String, Member> {
    let reported = cluster.status.as_ref().map(|status| status.members.as_slice()).unwrap_or_default();
    observed
        .pods
        .iter()
        .filter_map(|pod| {
            let seen = PodFacts::of(pod)?;
            let age =
                pod.metadata.creation_timestamp.as_ref().map_or(Duration::ZERO, |at| {
                    now.duration_since(at.0).try_into().unwrap_or(Duration::ZERO)
                });
            let ready = seen.ready == Some(true) && !seen.finished;
            let pending = reported.iter().find(|member| member.name == seen.name);
            let pending = pending.and_then(|member| member.pending_restart);
            let member = Member {
                uid: seen.uid,
                hash: hash_of(Some(&pod.metadata)).map(str::to_owned),
                ready,
                terminating: seen.terminating,
                never_started: pod.status.as_ref().and_then(|status| status.phase.as_deref())
                    == Some("Pending"),
                failing: (!ready).then(|| failing(pod, age)).flatten(),
                age,
                unscheduled: is_unscheduled(pod),
                claim: claim(observed, &seen.name),
                pending_restart: pending,
            };
            Some((seen.name, member))
        })
        .collect()
}

/// Why a pod cannot become ready by itself.
fn failing(pod: &Pod, age: Duration) -> Option<String> {
    if age < FAILING_AFTER {
        return None;
    }
    let status = pod.status.as_ref()?;
    let mut containers =
        status.init_container_statuses.iter().chain(status.container_statuses.iter()).flatten();

    if let Some(stuck) = containers.find_map(stuck) {
        return Some(stuck);
    }
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    unscheduled.map(|condition| {
        let message = condition.message.as_deref().unwrap_or_default();
        format!("{}: {message}", condition.reason.as_deref().unwrap_or("Unschedulable"))
    })
}

/// What is told must not change while nothing does, or the status would be written again and again: of the kubelet's
/// messages, which hold ports and back-offs, only those are repeated that name a mistake in the spec.
fn stuck(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| STUCK.contains(reason))?;
    let name = &container.name;
    Some(match reason {
        "ErrImagePull" | "ImagePullBackOff" => format!("{name}: cannot pull image {}", container.image),
        "ErrImageNeverPull" => format!("{name}: the node has no image {}", container.image),
        "InvalidImageName" => format!("{name}: {} is not the name of an image", container.image),
        "CreateContainerConfigError" => {
            let told = waiting.message.as_deref().and_then(|message| message.lines().next());
            format!("{name}: {reason}: {}", told.unwrap_or_default())
        }
        _ => format!("{name}: {reason}"),
    })
}

/// Names of pods that should exist and are not ready.
pub fn missing(facts: &Facts) -> Vec<String> {
    (0..facts.instances)
        .map(|ordinal| names::pod(&facts.cluster, ordinal))
        .filter(|pod| !facts.members.get(pod).is_some_and(|member| member.ready && !member.terminating))
        .collect()
}
