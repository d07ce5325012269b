//! Which member is cloned anew on another node, its volume given up (K14).
//!
//! A volume on a node's own disk pins its member there for ever. It is given up only when the Node is gone or declared out
//! of service, or after `failover.replaceAfter`, and only while the member's copy is provably not needed (S6): another
//! leads, the member is in no electorate, and followers that are enough for a commit are ready. The pod must be one that
//! no kubelet has: pods of a merely unreachable node are left alone, and Kubernetes itself ends those of a node that is
//! gone. Proved by `tests`, one for each precondition.

use api::names;

use super::{Deletion, Facts, Member};

/// Where a member's volume is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// It can be used anywhere, or nobody knows.
    #[default]
    Anywhere,
    /// On this node, which is there.
    On(String),
    /// On this node, which is gone.
    Gone(String),
    /// On this node, which is declared out of service.
    OutOfService(String),
}

/// The claim of a member's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its UID: a precondition.
    pub uid: String,
    /// It is being deleted.
    pub terminating: bool,
    /// It has a volume.
    pub bound: bool,
    /// Where its volume is.
    pub home: Home,
}

/// The next step of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nobody needs it.
    None,
    /// Somebody needs it, and this is missing.
    Held {
        /// The member.
        pod: String,
        /// What is missing, for people.
        why: String,
        /// It is still in an electorate and must leave it.
        leave: bool,
    },
    /// The claim goes, then the pod.
    Replace(Replacement),
}

/// What is deleted, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Name and UID of the claim.
    pub claim: (String, String),
    /// The pod, which never started.
    pub pod: Deletion,
}

/// Decides it: one member at a time, the lowest ordinal first.
pub fn next(facts: &Facts) -> Step {
    let mut held = Step::None;
    for ordinal in 0..facts.instances {
        let pod = names::pod(&facts.cluster, ordinal);
        let Some(member) = facts.members.get(&pod).filter(|member| waits_for_a_node(member)) else {
            continue;
        };
        // There is nothing to give up.
        let Some(claim) = &member.claim else { continue };
        // Its volume is given up already: an unscheduled pod does not hold the claim, and the StatefulSet's controller makes
        // the next one. Deleting the pod again and again would not make it go faster.
        if claim.terminating {
            let claim = names::data_claim(&pod);
            let why = format!(
                "the claim {claim} is still being deleted; whoever put a finalizer on it must let it go, then the member is cloned anew"
            );
            return Step::Held { pod, why, leave: false };
        }
        let Some(because) = because(facts, member, claim) else { continue };
        match objection(facts, &pod) {
            None => {
                return Step::Replace(Replacement {
                    claim: (names::data_claim(&pod), claim.uid.clone()),
                    pod: Deletion {
                        pod,
                        uid: member.uid.clone(),
                        why: format!("{because}; it is cloned anew"),
                    },
                });
            }
            Some((why, leave)) if held == Step::None => {
                held = Step::Held { pod, why: format!("{because}, but {why}"), leave };
            }
            Some(_) => {}
        }
    }
    held
}

/// No kubelet has the pod and none of its containers ever ran.
fn waits_for_a_node(member: &Member) -> bool {
    member.unscheduled && member.never_started && !member.terminating && !member.ready
}

fn because(facts: &Facts, member: &Member, claim: &Claim) -> Option<String> {
    let waited = facts.replace_after.filter(|bound| member.age >= *bound);
    match claim {
        Claim { home: Home::Gone(node), .. } => Some(format!("its node {node} is gone")),
        Claim { home: Home::OutOfService(node), .. } => Some(format!("its node {node} is out of service")),
        Claim { bound: true, .. } => {
            waited.map(|bound| format!("no node takes it for longer than {}s", bound.as_secs()))
        }
        // There is nothing to give up.
        Claim { bound: false, .. } => None,
    }
}

/// S6: why the member's copy may still be needed, and whether it only has to leave an electorate.
fn objection(facts: &Facts, pod: &String) -> Option<(String, bool)> {
    let well =
        |name: &String| facts.members.get(name).is_some_and(|member| member.ready && !member.terminating);
    let Some(leader) = &facts.leader else { return Some(("there is no master".to_owned(), false)) };
    if leader == pod {
        return Some(("the record says that it leads".to_owned(), false));
    }
    if !well(leader) {
        return Some((format!("the master {leader} is not ready"), false));
    }
    if facts.in_any_electorate.contains(pod) {
        return Some(("it is still in the electorate".to_owned(), true));
    }
    let needed = facts.acks.max(1) as usize;
    let good = facts.in_current_electorate.iter().filter(|name| *name != pod && well(name)).count();
    (good < needed).then(|| {
        let claim = names::data_claim(pod);
        let why = format!(
            "no other copy than the master's is sure ({good} of {needed} followers); delete the claim {claim} yourself if it is not needed"
        );
        (why, false)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::tests::healthy, *};

    /// `pg-2`'s node is gone; it left the electorate.
    fn lost(home: Home) -> Facts {
        let mut facts = healthy(3);
        let member = facts.members.get_mut("pg-2").unwrap();
        (member.ready, member.unscheduled, member.never_started) = (false, true, true);
        member.claim = Some(Claim { uid: "claim-2".into(), terminating: false, bound: true, home });
        facts.in_any_electorate.remove("pg-2");
        facts.in_current_electorate.remove("pg-2");
        facts
    }

    fn gone() -> Facts {
        lost(Home::Gone("n3".into()))
    }

    fn replaced(facts: &Facts) -> Option<Replacement> {
        match next(facts) {
            Step::Replace(replacement) => Some(replacement),
            Step::None | Step::Held { .. } => None,
        }
    }

    fn held(facts: &Facts) -> String {
        match next(facts) {
            Step::Held { pod, why, .. } => format!("{pod} {why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn k14_a_node_that_is_gone_or_out_of_service_gives_its_member_up() {
        for home in [Home::Gone("n3".into()), Home::OutOfService("n3".into())] {
            let replacement = replaced(&lost(home)).unwrap();
            assert_eq!(replacement.claim, ("pgdata-pg-2".into(), "claim-2".into()));
            assert_eq!((replacement.pod.pod.as_str(), replacement.pod.uid.as_str()), ("pg-2", "uid-2"));
        }
    }

    #[test]
    fn k14_a_node_that_is_there_or_unknown_does_not() {
        for home in [Home::On("n3".into()), Home::Anywhere] {
            assert_eq!(next(&lost(home)), Step::None);
        }
    }

    #[test]
    fn k14_a_pod_that_a_kubelet_has_is_left_alone() {
        let change: [fn(&mut Member); 4] = [
            |member| member.unscheduled = false,
            |member| member.never_started = false,
            |member| member.terminating = true,
            |member| member.ready = true,
        ];
        for change in change {
            let mut facts = gone();
            change(facts.members.get_mut("pg-2").unwrap());
            assert_eq!(next(&facts), Step::None);
        }
    }

    #[test]
    fn k14_replace_after_is_off_by_default_and_counts_from_the_pods_age() {
        let mut facts = lost(Home::On("n3".into()));
        facts.members.get_mut("pg-2").unwrap().age = Duration::from_secs(600);
        assert_eq!(next(&facts), Step::None);
        facts.replace_after = Some(Duration::from_secs(601));
        assert_eq!(next(&facts), Step::None);
        facts.replace_after = Some(Duration::from_secs(600));
        assert!(replaced(&facts).unwrap().pod.why.contains("longer than 600s"));
        facts.members.get_mut("pg-2").unwrap().claim.as_mut().unwrap().bound = false;
        assert_eq!(next(&facts), Step::None, "there is no volume that holds it back");
    }

    #[test]
    fn s6_the_records_leader_is_never_replaced() {
        assert_eq!(
            held(&Facts { leader: Some("pg-2".into()), ..gone() }),
            "pg-2 its node n3 is gone, but the record says that it leads"
        );
        assert!(held(&Facts { leader: None, ..gone() }).contains("there is no master"));
    }

    #[test]
    fn s6_the_master_must_be_well() {
        let mut facts = gone();
        facts.members.get_mut("pg-0").unwrap().ready = false;
        assert!(held(&facts).contains("the master pg-0 is not ready"));
        facts.members.remove("pg-0");
        assert!(held(&facts).contains("the master pg-0 is not ready"));
    }

    #[test]
    fn s6_a_member_of_any_electorate_leaves_it_first() {
        let mut facts = gone();
        facts.in_any_electorate.insert("pg-2".into());
        assert!(matches!(next(&facts), Step::Held { leave: true, .. }));
    }

    #[test]
    fn s6_another_good_copy_must_be_sure() {
        let mut facts = gone();
        facts.members.get_mut("pg-1").unwrap().ready = false;
        assert!(held(&facts).contains("0 of 1 followers"));
        let mut facts = gone();
        facts.members.get_mut("pg-1").unwrap().terminating = true;
        assert!(held(&facts).contains("0 of 1 followers"));
        let mut facts = gone();
        facts.in_current_electorate.clear();
        facts.acks = 0;
        assert!(
            held(&facts).contains("delete the claim pgdata-pg-2 yourself"),
            "a master alone is no second copy"
        );
        assert!(held(&Facts { acks: 2, ..gone() }).contains("1 of 2 followers"));
    }

    #[test]
    fn s6_the_last_member_is_never_replaced() {
        let mut facts = healthy(1);
        let member = facts.members.get_mut("pg-0").unwrap();
        (member.ready, member.unscheduled, member.never_started) = (false, true, true);
        member.claim =
            Some(Claim { uid: "c".into(), terminating: false, bound: true, home: Home::Gone("n1".into()) });
        assert!(replaced(&facts).is_none());
    }

    #[test]
    fn k14_it_goes_on_where_the_objects_stand() {
        let mut facts = gone();
        let member = facts.members.get_mut("pg-2").unwrap();
        member.claim.as_mut().unwrap().terminating = true;
        let told = held(&facts);
        assert!(told.contains("pg-2 the claim pgdata-pg-2 is still being deleted"), "{told}");
        assert!(told.contains("finalizer"), "nothing is deleted meanwhile: {told}");
        // The claim went; the StatefulSet's controller makes the next for the pod that waits.
        facts.members.get_mut("pg-2").unwrap().claim = None;
        assert_eq!(next(&facts), Step::None);
        // The new claim is not bound yet, so it is pinned nowhere.
        assert_eq!(next(&lost(Home::Anywhere)), Step::None);
    }

    #[test]
    fn k14_one_that_may_not_be_replaced_does_not_hold_up_another() {
        let mut facts = healthy(5);
        for (pod, in_electorate) in [("pg-3", true), ("pg-4", false)] {
            let member = facts.members.get_mut(pod).unwrap();
            (member.ready, member.unscheduled, member.never_started) = (false, true, true);
            member.claim = Some(Claim {
                uid: pod.into(),
                terminating: false,
                bound: true,
                home: Home::Gone("n".into()),
            });
            if !in_electorate {
                facts.in_any_electorate.remove(pod);
                facts.in_current_electorate.remove(pod);
            }
        }
        assert_eq!(replaced(&facts).unwrap().pod.pod, "pg-4");
    }
}
