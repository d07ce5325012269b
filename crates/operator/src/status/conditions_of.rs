//! What each condition says, one function each.

use api::conditions::{reasons, types};
use kubernetes::{conditions::Wanted, nodes::NodeSeen, record::RecordRead};

use super::{Inputs, is_open, record};
use crate::{build::secrets::text, facts::missing, memory, plan::Progress};

pub(super) fn all(inputs: &Inputs<'_>) -> Vec<Wanted> {
    let mut all = vec![
        ready(inputs),
        progressing(inputs),
        degraded(inputs),
        quorum(inputs),
        spec_valid(inputs),
        pending_restart(inputs),
        certificates(inputs),
        diverged(inputs),
    ];
    all.extend(halted(inputs));
    all
}

fn ready(inputs: &Inputs<'_>) -> Wanted {
    let no = |reason, message: String| Wanted::new(types::READY, false, reason, message);
    match &inputs.observed.record {
        RecordRead::Missing if crate::prepared::record_is_to_be_made(inputs.observed) => {
            no(reasons::INITIALISING, "the first master is being made".to_owned())
        }
        RecordRead::Missing => no(
            reasons::RECORD_LOST,
            "the record (Lease) is gone while volumes exist; nothing is initialised or elected until it is restored"
                .to_owned(),
        ),
        RecordRead::Tampered { why } => no(reasons::RECORD_LOST, format!("the record (Lease) is not usable: {why}")),
        RecordRead::Unknown { .. } => {
            Wanted::unknown(types::READY, reasons::UNKNOWN, "the record (Lease) could not be read")
        }
        RecordRead::Known(snapshot) => match &snapshot.record().leader {
            None => no(reasons::INITIALISING, "the first master is being made".to_owned()),
            Some(leader) if is_open(inputs) => Wanted::new(
                types::READY,
                true,
                reasons::WRITABLE,
                format!("{} accepts writes in epoch {}", leader.name, snapshot.record().epoch),
            ),
            Some(leader) if inputs.facts.members.get(&leader.name.0).is_none_or(|member| member.uid != leader.pod_uid) => {
                no(reasons::NO_MASTER, format!("the pod of {} is gone, the others elect", leader.name))
            }
            Some(leader) => no(
                reasons::ROUTE_PENDING,
                format!("{} leads in epoch {} and does not accept writes yet", leader.name, snapshot.record().epoch),
            ),
        },
    }
}

fn progressing(inputs: &Inputs<'_>) -> Wanted {
    let new = |status, reason, message: String| Wanted::new(types::PROGRESSING, status, reason, message);
    if inputs.cluster.spec.paused {
        return new(
            false,
            reasons::PAUSED,
            "spec.paused is set: the operator leaves this cluster alone".to_owned(),
        );
    }
    if inputs.cluster.metadata.deletion_timestamp.is_some() {
        return new(true, reasons::DELETING, "members are stopping".to_owned());
    }
    match &inputs.progress {
        Progress::Settled => new(false, reasons::SETTLED, "everything is as the spec says".to_owned()),
        Progress::Scaling(what) => new(true, reasons::SCALING, what.clone()),
        Progress::Rolling(what) => new(true, reasons::ROLLING, what.clone()),
        Progress::Replacing(what) => new(true, reasons::REPLACING, what.clone()),
        Progress::Restarting(what) => new(true, reasons::RESTARTING, what.clone()),
    }
}

fn degraded(inputs: &Inputs<'_>) -> Wanted {
    let missing = missing(inputs.facts);
    if missing.is_empty() {
        return Wanted::new(types::DEGRADED, false, reasons::ALL_HEALTHY, "all members are ready");
    }
    let told: Vec<String> = missing
        .iter()
        .map(|pod| {
            if let Some((_, why)) = inputs.held.as_ref().filter(|(held, _)| held == pod) {
                return format!("{pod} ({why})");
            }
            let failing = inputs.facts.members.get(pod).and_then(|member| member.failing.as_ref());
            failing.map_or_else(|| pod.clone(), |why| format!("{pod} ({why})"))
        })
        .collect();
    Wanted::new(types::DEGRADED, true, reasons::MEMBERS_MISSING, format!("not ready: {}", told.join(", ")))
}

fn quorum(inputs: &Inputs<'_>) -> Wanted {
    let Some(current) = record(inputs.observed).and_then(ha::Record::current_electorate) else {
        return Wanted::unknown(types::QUORUM_AVAILABLE, reasons::UNKNOWN, "there is no electorate yet");
    };
    let is_ready = |name: &&String| inputs.facts.members.get(*name).is_some_and(|seen| seen.ready);
    if record(inputs.observed).is_some_and(|record| record.lease_millis.is_some()) {
        let ready = inputs.facts.in_current_electorate.iter().filter(is_ready).count();
        let (status, reason) = if ready > 0 || inputs.facts.instances == 1 {
            (true, reasons::QUORUM)
        } else {
            (false, reasons::NO_QUORUM)
        };
        let message = format!("asynchronous: {ready} followers stream, a commit waits for none");
        return Wanted::new(types::QUORUM_AVAILABLE, status, reason, message);
    }
    let ready = current.members.iter().map(|member| &member.name.0).filter(is_ready).count();
    let needed = current.acks as usize;
    let all = current.members.len();
    // A cluster that should have followers and has none in its electorate would lose its data with its master.
    let alone = all == 0 && inputs.facts.instances > 1;
    if alone {
        let message =
            "the master is alone in its electorate: a failover is not possible until a follower streams";
        return Wanted::new(types::QUORUM_AVAILABLE, false, reasons::NO_QUORUM, message);
    }
    let (status, reason) =
        if ready >= needed { (true, reasons::QUORUM) } else { (false, reasons::NO_QUORUM) };
    let message = format!("{ready} of {all} followers of the electorate are ready, a commit needs {needed}");
    Wanted::new(types::QUORUM_AVAILABLE, status, reason, message)
}

fn spec_valid(inputs: &Inputs<'_>) -> Wanted {
    match (&inputs.refused, refused_parameters(inputs)) {
        (None, Some((pod, why))) => {
            Wanted::new(types::SPEC_VALID, false, reasons::PARAMETERS_REFUSED, refused_sentence(pod, why))
        }
        (None, None) => {
            let nodes = inputs.observed.nodes.iter().filter_map(|(name, node)| match node {
                NodeSeen::There(node) => Some((name.as_str(), node.allocatable_memory.as_deref()?)),
                NodeSeen::Gone | NodeSeen::Unknown => None,
            });
            let told = match memory::warning(&inputs.cluster.spec, nodes) {
                Some(warning) => format!("the spec is accepted, but {warning}"),
                None => "the spec is accepted".to_owned(),
            };
            Wanted::new(types::SPEC_VALID, true, reasons::ACCEPTED, told)
        }
        (Some((reason, message)), _) => Wanted::new(types::SPEC_VALID, false, *reason, message.clone()),
    }
}

/// Names the field that has to be corrected: the agent begins a line's refusal with its field, PostgreSQL with the file.
fn refused_sentence(pod: &str, why: &str) -> String {
    let (what, field) = if why.contains("spec.postgres.hba[") || why.contains("pg_hba.conf") {
        ("lines of pg_hba.conf", "spec.postgres.hba")
    } else {
        ("parameters", "spec.postgres.parameters")
    };
    format!("{pod} refuses {what}, the last good ones stay in force: {why}; correct {field}")
}

/// The first member that said so: what only a running PostgreSQL can find wrong.
fn refused_parameters<'a>(inputs: &'a Inputs<'_>) -> Option<(&'a str, &'a str)> {
    let members = &inputs.cluster.status.as_ref()?.members;
    members.iter().find_map(|member| Some((member.name.as_str(), member.parameters_refused.as_deref()?)))
}

/// Present only while it says something, as it is about an exception.
fn halted(inputs: &Inputs<'_>) -> Option<Wanted> {
    let why = inputs.halted.as_ref()?;
    Some(Wanted::new(
        types::ROLL_OUT_HALTED,
        true,
        reasons::FIRST_MEMBER_UNHEALTHY,
        format!(
            "the change was taken back because its first member did not come up: {why}; correct the spec"
        ),
    ))
}

fn pending_restart(inputs: &Inputs<'_>) -> Wanted {
    let waiting: Vec<&str> = inputs
        .facts
        .members
        .iter()
        .filter(|(_, member)| member.pending_restart == Some(true))
        .map(|(pod, _)| pod.as_str())
        .collect();
    if waiting.is_empty() {
        Wanted::new(types::PENDING_RESTART, false, reasons::SETTLED, "no parameter waits for a restart")
    } else {
        let message = format!("parameters wait for a restart of {}", waiting.join(", "));
        Wanted::new(types::PENDING_RESTART, true, reasons::RESTARTING, message)
    }
}

/// §4 step 10: what a rewind or a clone threw away stays until people let it go, so it is told until then.
fn diverged(inputs: &Inputs<'_>) -> Wanted {
    let members = inputs.cluster.status.iter().flat_map(|status| &status.members);
    let kept: Vec<String> = members
        .flat_map(|member| {
            let told =
                |kept: &api::KeptWal| format!("{} keeps {} bytes in {}", member.name, kept.bytes, kept.path);
            member.diverged_wal.iter().map(told)
        })
        .collect();
    if kept.is_empty() {
        return Wanted::new(
            types::DIVERGED_MEMBER,
            false,
            reasons::NOTHING_KEPT,
            "no member keeps diverged WAL",
        );
    }
    let message = format!(
        "WAL that the master's history lacks is kept aside: {}; look with pg_waldump whether anything in it is missed, then delete the directory in that member's pod (container {})",
        kept.join(", "),
        api::names::CONTAINER
    );
    Wanted::new(types::DIVERGED_MEMBER, true, reasons::DIVERGED_WAL_KEPT, message)
}

fn certificates(inputs: &Inputs<'_>) -> Wanted {
    let existing = &inputs.observed.certificates;
    let leaves = [("server", &existing.server), ("peer", &existing.peer), ("client", &existing.client)];
    let expired: Vec<&str> = leaves
        .iter()
        .filter(|(_, secret)| {
            let pem = secret.as_ref().and_then(|secret| text(secret, "tls.crt"));
            let validity = pem.and_then(|pem| pki::validity(&pem).ok());
            validity.is_none_or(|validity| validity.not_after <= inputs.now)
        })
        .map(|(name, _)| *name)
        .collect();
    if let Some(waits) = inputs.rotation.as_ref().filter(|_| expired.is_empty()) {
        return Wanted::new(types::CERTIFICATES_VALID, true, reasons::ROTATING, waits.clone());
    }
    if expired.is_empty() {
        Wanted::new(types::CERTIFICATES_VALID, true, reasons::VALID, "all certificates are valid")
    } else {
        let message = format!("missing or expired: {}", expired.join(", "));
        Wanted::new(types::CERTIFICATES_VALID, false, reasons::OBJECT_REFUSED, message)
    }
}
