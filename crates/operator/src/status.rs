//! The operator's part of the status (K19): phase, counts, electorates, what was pinned, and conditions.
//!
//! Computed from what was observed, never from what was hoped. The leading agent writes `master`, `epoch`, `timeline`,
//! `members` and `lastFailover`; this code leaves them out.

use api::{Phase, Pinned, PostgresCluster, PostgresClusterStatus, names, names::DEFAULT_POOL};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kubernetes::{conditions, record::RecordRead};

use crate::{
    dereference::Observed,
    facts,
    plan::{Facts, Progress},
};

mod conditions_of;

/// What the status is computed from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The cluster as it was read.
    pub cluster: &'a PostgresCluster,
    /// What is there.
    pub observed: &'a Observed,
    /// What it means.
    pub facts: &'a Facts,
    /// Version and images, when the spec was accepted.
    pub pinned: Option<&'a Pinned>,
    /// The Service that leads to the master.
    pub write_service: String,
    /// What is going on.
    pub progress: Progress,
    /// Why what the spec asks for is not in force.
    pub halted: Option<String>,
    /// Why the spec, or an object, was refused: reason and message.
    pub refused: Option<(&'static str, String)>,
    /// Who would be replaced on another node but may not, and why.
    pub held: Option<(String, String)>,
    /// What a rotation of the certificate authority waits for.
    pub rotation: Option<String>,
    /// Now.
    pub now: Timestamp,
}

/// The operator's part of the status.
pub fn compute(inputs: &Inputs<'_>) -> PostgresClusterStatus {
    let before = inputs.cluster.status.clone().unwrap_or_default();
    let record = record(inputs.observed);
    let name = inputs.cluster.name_any();
    let exists = inputs.facts.members.values().filter(|member| !member.terminating).count();
    let ready = inputs.facts.members.values().filter(|member| member.ready && !member.terminating).count();
    let wanted = conditions_of::all(inputs);
    PostgresClusterStatus {
        observed_generation: inputs.cluster.metadata.generation,
        phase: Some(phase(inputs)),
        instances: i32::try_from(exists).ok(),
        ready_instances: i32::try_from(ready).ok(),
        selector: Some(names::labels::pool_selector_text(&name, DEFAULT_POOL)),
        electorates: record
            .map(|record| record.electorates.iter().map(electorate).collect())
            .unwrap_or_default(),
        last_data_loss: record
            .and_then(|record| record.data_loss.as_ref())
            .map(data_loss)
            .or_else(|| before.last_data_loss.clone()),
        system_identifier: record
            .and_then(|record| record.system_identifier)
            .map(|identifier| identifier.to_string())
            .or(before.system_identifier),
        pinned: inputs.pinned.cloned().or(before.pinned),
        conditions: conditions::merge(
            &before.conditions,
            wanted,
            inputs.cluster.metadata.generation,
            inputs.now,
        ),
        ..PostgresClusterStatus::default()
    }
}

/// Whether `wanted` says anything that `there` does not.
pub fn differs(there: Option<&PostgresClusterStatus>, wanted: &PostgresClusterStatus) -> bool {
    let Some(there) = there else { return true };
    let ours = PostgresClusterStatus {
        master: None,
        epoch: None,
        timeline: None,
        members: Vec::new(),
        last_failover: None,
        ..there.clone()
    };
    let sorted = |status: &PostgresClusterStatus| {
        let mut conditions = status.conditions.clone();
        conditions.sort_by(|one, other| one.type_.cmp(&other.type_));
        PostgresClusterStatus { conditions, ..status.clone() }
    };
    sorted(&ours) != sorted(wanted)
}

pub(crate) fn record(observed: &Observed) -> Option<&ha::Record> {
    match &observed.record {
        RecordRead::Known(snapshot) => Some(snapshot.record()),
        RecordRead::Missing | RecordRead::Tampered { .. } | RecordRead::Unknown { .. } => None,
    }
}

/// Whether the record's leader accepts writes: it opened the route of the current epoch to itself (ha-protocol §4 step
/// 8), which it does only after a write of its own succeeded, and it is ready.
pub(crate) fn is_open(inputs: &Inputs<'_>) -> bool {
    let Some(record) = record(inputs.observed) else { return false };
    let Some(leader) = &record.leader else { return false };
    let open = |family| {
        let name = kubernetes::slices::slice_name(&inputs.write_service, family);
        inputs.observed.slice(&name).is_some_and(|slice| {
            slice.epoch == Some(record.epoch)
                && slice.endpoints.iter().any(|(uid, _)| uid.as_deref() == Some(leader.pod_uid.as_str()))
        })
    };
    let ready = inputs
        .facts
        .members
        .get(&leader.name.0)
        .is_some_and(|member| member.ready && member.uid == leader.pod_uid);
    ready && (open(kubernetes::slices::Family::V4) || open(kubernetes::slices::Family::V6))
}

fn phase(inputs: &Inputs<'_>) -> Phase {
    let Some(record) = record(inputs.observed) else {
        let new = crate::prepared::record_is_to_be_made(inputs.observed);
        return if new { Phase::Initialising } else { Phase::NoMaster };
    };
    if record.phase == ha::Phase::Uninitialised || record.leader.is_none() {
        return Phase::Initialising;
    }
    if record.handover.is_some() {
        return Phase::SwitchingOver;
    }
    if !is_open(inputs) {
        return if inputs.facts.members.is_empty() { Phase::Stopped } else { Phase::FailingOver };
    }
    match inputs.progress {
        Progress::Rolling(_) | Progress::Replacing(_) | Progress::Restarting(_) | Progress::Scaling(_) => {
            Phase::Updating
        }
        Progress::Settled if facts::missing(inputs.facts).is_empty() => Phase::Healthy,
        Progress::Settled => Phase::Degraded,
    }
}

fn data_loss(loss: &ha::DataLoss) -> api::LastDataLoss {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    api::LastDataLoss {
        member: loss.member.name.0.clone(),
        former: loss.former.as_ref().map(|former| former.0.clone()),
        epoch: number(loss.epoch.0),
        timeline: i64::from(loss.kept.timeline.0),
        lsn: loss.kept.lsn.to_string(),
        known_bytes: loss.known_bytes.map(number),
    }
}

fn electorate(electorate: &ha::Electorate) -> api::ElectorateStatus {
    api::ElectorateStatus {
        members: electorate.members.iter().map(|member| member.name.0.clone()).collect(),
        acks: i32::try_from(electorate.acks).unwrap_or(i32::MAX),
        leader: Some(electorate.leader.name.0.clone()),
    }
}
