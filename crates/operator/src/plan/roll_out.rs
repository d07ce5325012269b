//! The order in which pods are replaced when their template changes.
//!
//! Followers first, from the highest ordinal, one at a time and only while all others are ready and in the electorate;
//! the master last, after it handed over. The StatefulSet is `OnDelete`, so nothing happens but what is decided here.

use super::{Deletion, Facts, Member};
use api::{WhenShort, names};

/// The next step of a roll-out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Every pod has the template.
    Done,
    /// Something must happen by itself first.
    Wait(String),
    /// This member hands over and leaves the electorate; then its pod is deleted.
    HandAway {
        /// The member.
        pod: String,
        /// Its pod, when it may go now.
        delete: Option<Deletion>,
    },
}

/// A pod of another template that cannot become ready by itself, or of one that was given up: it is down anyway, so nobody
/// waits before it is replaced. This is how a halted roll-out, or an undone edit, heals (K12). A member that merely takes
/// long, since it clones or recovers, is left alone.
pub fn broken(facts: &Facts, target: &str, given_up: Option<&str>) -> Option<Deletion> {
    facts.members.iter().find_map(|(pod, member)| {
        if !outdated(member, target) || member.ready || member.terminating {
            return None;
        }
        let of_given_up = given_up.is_some() && member.hash.as_deref() == given_up;
        let why = match &member.failing {
            Some(why) => why.as_str(),
            None if of_given_up => "it does not become ready",
            None if member.never_started => "it never started",
            None => return None,
        };
        Some(Deletion {
            pod: pod.clone(),
            uid: member.uid.clone(),
            why: format!("its template is not in force: {why}"),
        })
    })
}

/// Decides the next step towards the template with the hash `target`.
pub fn next(facts: &Facts, target: &str) -> Step {
    let wanted: Vec<String> =
        (0..facts.instances).map(|ordinal| names::pod(&facts.cluster, ordinal)).collect();
    let is_outdated = |pod: &&String| facts.members.get(*pod).is_some_and(|member| outdated(member, target));
    let old: Vec<&String> = wanted.iter().filter(is_outdated).collect();
    if old.is_empty() {
        return Step::Done;
    }
    for pod in &wanted {
        match facts.members.get(pod) {
            None => return Step::Wait(format!("{pod} is being made")),
            Some(member) if member.terminating => return Step::Wait(format!("{pod} is stopping")),
            Some(member) if !member.ready => return Step::Wait(format!("{pod} is not ready")),
            Some(_) => {}
        }
    }
    let Some(leader) = &facts.leader else { return Step::Wait("there is no master".to_owned()) };
    let candidate = old.iter().rev().find(|pod| **pod != leader);
    let pod = candidate.map_or(leader, |pod| *pod);
    let outside = wanted
        .iter()
        .find(|other| *other != pod && *other != leader && !facts.in_current_electorate.contains(*other));
    if let Some(other) = outside {
        return Step::Wait(format!("{other} is not in the electorate yet"));
    }
    let delete = may_stop(facts, pod, leader).then(|| Deletion {
        pod: pod.clone(),
        uid: facts.members.get(pod).map(|member| member.uid.clone()).unwrap_or_default(),
        why: "its template changed".to_owned(),
    });
    Step::HandAway { pod: pod.clone(), delete }
}

/// K16: the quorum is re-checked before each deletion of ours.
fn may_stop(facts: &Facts, pod: &String, leader: &String) -> bool {
    if pod == leader {
        return facts.instances == 1;
    }
    if !facts.in_any_electorate.contains(pod) {
        return true;
    }
    // With `block` the master never gives up a follower that its acknowledgements need: it can only be missed.
    let left = facts.in_current_electorate.iter().filter(|name| *name != pod).count();
    facts.when_short == WhenShort::Block && left < facts.acks as usize
}

fn outdated(member: &Member, target: &str) -> bool {
    member.hash.as_deref() != Some(target)
}

#[cfg(test)]
mod tests {
    use super::super::tests::healthy;
    use super::*;

    fn step(facts: &Facts) -> (String, bool) {
        match next(facts, "new") {
            Step::HandAway { pod, delete } => (pod, delete.is_some()),
            other => panic!("{other:?}"),
        }
    }

    fn updated(facts: &mut Facts, pod: &str) {
        facts.members.get_mut(pod).unwrap().hash = Some("new".into());
    }

    #[test]
    fn followers_first_and_the_master_last_after_a_hand_over() {
        let mut facts = healthy(3);
        assert_eq!(step(&facts), ("pg-2".into(), false), "still in the electorate");
        facts.in_any_electorate.remove("pg-2");
        facts.in_current_electorate.remove("pg-2");
        assert_eq!(step(&facts), ("pg-2".into(), true));

        updated(&mut facts, "pg-2");
        facts.members.get_mut("pg-2").unwrap().ready = false;
        assert_eq!(next(&facts, "new"), Step::Wait("pg-2 is not ready".into()));
        facts.members.get_mut("pg-2").unwrap().ready = true;
        assert_eq!(next(&facts, "new"), Step::Wait("pg-2 is not in the electorate yet".into()));
        facts.in_any_electorate.insert("pg-2".into());
        facts.in_current_electorate.insert("pg-2".into());
        assert_eq!(step(&facts), ("pg-1".into(), false));

        updated(&mut facts, "pg-1");
        assert_eq!(step(&facts), ("pg-0".into(), false), "the master hands over first");
        facts.leader = Some("pg-1".into());
        facts.in_any_electorate = ["pg-2".to_owned()].into();
        facts.in_current_electorate = facts.in_any_electorate.clone();
        assert_eq!(step(&facts), ("pg-0".into(), true));
        updated(&mut facts, "pg-0");
        assert_eq!(next(&facts, "new"), Step::Done);
    }

    #[test]
    fn a_single_member_is_replaced_without_a_hand_over() {
        assert_eq!(step(&healthy(1)), ("pg-0".into(), true));
    }

    #[test]
    fn block_with_nobody_to_spare_goes_on() {
        let mut facts = healthy(2);
        facts.when_short = WhenShort::Block;
        assert_eq!(step(&facts), ("pg-1".into(), true));
    }

    #[test]
    fn k16_nothing_is_deleted_while_there_is_no_master() {
        let facts = Facts { leader: None, ..healthy(3) };
        assert_eq!(next(&facts, "new"), Step::Wait("there is no master".into()));
    }

    #[test]
    fn a_pod_that_fails_with_another_template_goes_at_once() {
        let mut facts = healthy(3);
        let member = facts.members.get_mut("pg-2").unwrap();
        (member.ready, member.failing) = (false, Some("ErrImagePull".into()));
        assert_eq!(broken(&facts, "new", None).unwrap().pod, "pg-2");
        assert_eq!(broken(&facts, "old", None), None, "with the template in force it may yet come up");
        facts.members.get_mut("pg-2").unwrap().failing = None;
        assert_eq!(broken(&facts, "new", None), None, "it may be cloning");
        assert_eq!(
            broken(&facts, "new", Some("old")).unwrap().pod,
            "pg-2",
            "it cannot be, with that template"
        );
        facts.members.get_mut("pg-2").unwrap().never_started = true;
        assert_eq!(broken(&facts, "new", None).unwrap().pod, "pg-2", "nor while its image is being pulled");
    }
}
