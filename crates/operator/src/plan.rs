//! What to do next with the members of a cluster: a pure decision, one step at a time.
//!
//! Decides how many replicas the StatefulSet has, which template it carries, which member is asked to hand over or to
//! restart, and which pod is deleted. Every step is derived from what is observed, never from a remembered phase, so an
//! operator that dies between two steps goes on where the objects stand. It never picks a master and never deletes the
//! one that leads while another could (K16). Each file's tests are its proof.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::WhenShort;

use crate::build::config_map::Wishes;

pub mod replace;
pub mod restart;
pub mod roll_out;
pub mod scale;
pub mod template;

/// One member as far as the plan is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations of one member, not a state")]
pub struct Member {
    /// UID of its pod.
    pub uid: String,
    /// Hash of the template that its pod was made from.
    pub hash: Option<String>,
    /// Its pod is ready.
    pub ready: bool,
    /// Its pod is being deleted.
    pub terminating: bool,
    /// None of its containers but the first initialising ones ever ran: replacing it loses nothing.
    pub never_started: bool,
    /// Why its pod cannot become ready by itself.
    pub failing: Option<String>,
    /// Age of its pod.
    pub age: Duration,
    /// No node takes its pod.
    pub unscheduled: bool,
    /// The claim of its volume.
    pub claim: Option<replace::Claim>,
    /// Whether parameters wait for a restart, as the leader reports; `None` when the member did not say, as while it
    /// restarts.
    pub pending_restart: Option<bool>,
}

/// What the plan rests on.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Name of the cluster.
    pub cluster: String,
    /// How many members the user wants.
    pub instances: u32,
    /// How many replicas the StatefulSet has; `None` when there is none.
    pub replicas: Option<u32>,
    /// Members by pod name.
    pub members: BTreeMap<String, Member>,
    /// The record's leader; `None` when there is none or the record is not known.
    pub leader: Option<String>,
    /// Whether the record is known and says that there never was data.
    pub uninitialised: bool,
    /// Names in any electorate of the record.
    pub in_any_electorate: BTreeSet<String>,
    /// Names in the electorate in force.
    pub in_current_electorate: BTreeSet<String>,
    /// Acknowledgements that the electorate in force needs.
    pub acks: u32,
    /// What the master does without enough followers.
    pub when_short: WhenShort,
    /// How long no node may take a member before its volume is given up; `None` for ever.
    pub replace_after: Option<Duration>,
    /// What each member that exists, or should, says of the certificates in force in it.
    pub certificates: BTreeMap<String, Option<String>>,
    /// Zones of the members' nodes, as far as the operator may see them.
    pub zones: BTreeMap<String, String>,
}

/// What is going on, for conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything is as the spec says.
    Settled,
    /// Members are being added or removed.
    Scaling(String),
    /// Pods are being replaced.
    Rolling(String),
    /// A member is cloned anew on another node.
    Replacing(String),
    /// PostgreSQL is being restarted.
    Restarting(String),
}

/// A pod that is to be deleted, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Name of the pod.
    pub pod: String,
    /// Its UID: a precondition.
    pub uid: String,
    /// Why, for the Event.
    pub why: String,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Replicas of the StatefulSet.
    pub replicas: u32,
    /// What members are told.
    pub wishes: Wishes,
    /// At most one pod.
    pub delete: Option<Deletion>,
    /// The claim that goes before that pod: name and UID (K14).
    pub delete_claim: Option<(String, String)>,
    /// Who would be replaced but may not, and why.
    pub held: Option<(String, String)>,
    /// What is going on.
    pub progress: Progress,
}

impl Plan {
    fn hold_copy(&mut self, pod: String) {
        let claim = api::names::data_claim(&pod);
        let why = format!(
            "the claim {claim} is being deleted and its copy of the data would go with the pod; make sure of another copy, then delete the pod yourself"
        );
        self.progress = Progress::Rolling(format!("{pod} is not replaced: {why}"));
        self.held = Some((pod, why));
    }

    /// Members that the Role must name before `replicas` grows, and still names while members leave (K17).
    pub fn role_pods(&self, facts: &Facts) -> BTreeSet<String> {
        let most = self.replicas.max(facts.instances).max(facts.replicas.unwrap_or_default());
        (0..most).map(|ordinal| api::names::pod(&facts.cluster, ordinal)).collect()
    }
}

/// Decides the next step; `target` is the hash of the template in force, `given_up` that of one that was taken back.
pub fn plan(facts: &Facts, target: &str, given_up: Option<&str>) -> Plan {
    let mut plan = step(facts, target, given_up);
    if let Some(deletion) = plan.delete.take_if(|deletion| takes_a_copy_along(facts, &deletion.pod)) {
        plan.delete_claim = None;
        plan.hold_copy(deletion.pod);
    }
    plan
}

/// S6: whether a member has a good copy that would go for good with its pod: somebody deleted the claim, and only the pod
/// holds it still.
fn takes_a_copy_along(facts: &Facts, pod: &str) -> bool {
    facts
        .members
        .get(pod)
        .is_some_and(|member| member.ready && member.claim.as_ref().is_some_and(|claim| claim.terminating))
}

fn step(facts: &Facts, target: &str, given_up: Option<&str>) -> Plan {
    let scale = scale::scale(facts);
    let members = |replicas: u32| -> BTreeSet<String> {
        (0..replicas).map(|ordinal| api::names::pod(&facts.cluster, ordinal)).collect()
    };
    let mut plan = Plan {
        replicas: scale.replicas,
        wishes: Wishes {
            members: members(scale.replicas),
            handover_away: scale.leaving,
            restart: BTreeSet::new(),
            zones: facts.zones.clone(),
        },
        delete: None,
        delete_claim: None,
        held: None,
        progress: scale.progress,
    };
    if let Some(broken) = roll_out::broken(facts, target, given_up) {
        plan.delete = Some(broken);
    }
    if plan.progress != Progress::Settled {
        return plan;
    }
    match replace::next(facts) {
        replace::Step::None => {}
        replace::Step::Held { pod, why, leave } => {
            if leave {
                plan.wishes.handover_away.insert(pod.clone());
            }
            plan.held = Some((pod, why));
        }
        replace::Step::Replace(replacement) => {
            plan.progress = Progress::Replacing(format!("{}: {}", replacement.pod.pod, replacement.pod.why));
            plan.delete_claim = Some(replacement.claim);
            plan.delete = Some(replacement.pod);
            return plan;
        }
    }
    match roll_out::next(facts, target) {
        roll_out::Step::Done => {}
        roll_out::Step::Wait(why) => plan.progress = Progress::Rolling(why),
        // It would leave the electorate for a replacement that may not come.
        roll_out::Step::HandAway { pod, .. } if takes_a_copy_along(facts, &pod) => plan.hold_copy(pod),
        roll_out::Step::HandAway { pod, delete } => {
            let why = if delete.is_some() { "is replaced" } else { "leaves before it is replaced" };
            plan.progress = Progress::Rolling(format!("{pod} {why}"));
            plan.wishes.handover_away.insert(pod);
            plan.delete = plan.delete.or(delete);
        }
    }
    if plan.progress == Progress::Settled
        && let Some(pod) = restart::next(facts)
    {
        plan.progress = Progress::Restarting(format!("{pod} restarts PostgreSQL for changed parameters"));
        plan.wishes.restart.insert(pod);
    }
    plan
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A healthy cluster of `n` members on template `old`, led by `pg-0`.
    pub(crate) fn healthy(n: u32) -> Facts {
        let member = |ordinal: u32| Member {
            uid: format!("uid-{ordinal}"),
            hash: Some("old".into()),
            ready: true,
            age: Duration::from_secs(3600),
            pending_restart: Some(false),
            ..Member::default()
        };
        let followers: BTreeSet<String> = (1..n).map(|ordinal| format!("pg-{ordinal}")).collect();
        Facts {
            cluster: "pg".into(),
            instances: n,
            replicas: Some(n),
            members: (0..n).map(|ordinal| (format!("pg-{ordinal}"), member(ordinal))).collect(),
            leader: Some("pg-0".into()),
            in_any_electorate: followers.clone(),
            in_current_electorate: followers,
            acks: u32::from(n > 1),
            ..Facts::default()
        }
    }

    #[test]
    fn a_healthy_cluster_needs_nothing() {
        let facts = healthy(3);
        let plan = plan(&facts, "old", None);
        assert_eq!(plan.progress, Progress::Settled);
        assert!(
            plan.delete.is_none() && plan.wishes.handover_away.is_empty() && plan.wishes.restart.is_empty()
        );
        assert_eq!(plan.wishes.members.len(), 3);
    }

    #[test]
    fn s6_a_ready_member_whose_claim_is_being_deleted_keeps_its_pod() {
        for out in [false, true] {
            let mut facts = healthy(3);
            if out {
                facts.in_any_electorate.remove("pg-2");
                facts.in_current_electorate.remove("pg-2");
            }
            let free = plan(&facts, "new", None);
            assert_eq!(free.delete.is_some(), out);
            facts.members.get_mut("pg-2").unwrap().claim = Some(replace::Claim {
                uid: "claim-2".into(),
                terminating: true,
                bound: true,
                home: replace::Home::Anywhere,
            });
            let held = plan(&facts, "new", None);
            assert_eq!(held.delete, None);
            assert!(held.wishes.handover_away.is_empty(), "nor does it leave the electorate for that");
            let (pod, why) = held.held.unwrap();
            assert!(pod == "pg-2" && why.contains("pgdata-pg-2 is being deleted"), "{why}");
        }
    }

    #[test]
    fn a_cluster_that_does_not_exist_is_made_at_full_size() {
        let facts = Facts { cluster: "pg".into(), instances: 3, uninitialised: true, ..Facts::default() };
        let plan = plan(&facts, "old", None);
        assert_eq!(plan.replicas, 3);
        assert_eq!(plan.role_pods(&facts).len(), 3);
    }
}
