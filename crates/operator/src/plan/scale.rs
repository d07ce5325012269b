//! How many members there are.
//!
//! Growing is at once: new members clone and join when they stream. Shrinking waits until those who leave neither lead nor
//! are in any electorate (a joint change made by the leader), and never goes ahead when the record is not known.

use std::collections::BTreeSet;

use api::names;

use super::{Facts, Progress};

/// The number of replicas and who leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Replicas of the StatefulSet.
    pub replicas: u32,
    /// Members that leave for good.
    pub leaving: BTreeSet<String>,
    /// What is going on.
    pub progress: Progress,
}

/// Decides it.
pub fn scale(facts: &Facts) -> Scale {
    let settled = |replicas| Scale { replicas, leaving: BTreeSet::new(), progress: Progress::Settled };
    let Some(now) = facts.replicas else { return settled(facts.instances) };
    if now <= facts.instances {
        let missing = (now..facts.instances).map(|ordinal| names::pod(&facts.cluster, ordinal));
        let missing: Vec<String> = missing.collect();
        let progress = if missing.is_empty() {
            Progress::Settled
        } else {
            Progress::Scaling(format!("{} added", listed(&missing)))
        };
        return Scale { progress, ..settled(facts.instances) };
    }
    let leaving: BTreeSet<String> =
        (facts.instances..now).map(|ordinal| names::pod(&facts.cluster, ordinal)).collect();
    let all: Vec<String> = leaving.iter().cloned().collect();
    let leads = facts.leader.as_ref().filter(|leader| leaving.contains(*leader));
    let voting: Vec<String> = leaving.intersection(&facts.in_any_electorate).cloned().collect();
    let waiting = match (leads, &facts.leader) {
        _ if facts.uninitialised => None,
        (Some(leader), _) => Some(format!("{leader} leads and must hand over before it is removed")),
        (None, None) => Some("there is no master, nobody is removed".to_owned()),
        (None, Some(_)) if !voting.is_empty() => {
            Some(format!("{} must leave the electorate before being removed", listed(&voting)))
        }
        (None, Some(_)) => None,
    };
    match waiting {
        Some(why) => Scale { replicas: now, leaving, progress: Progress::Scaling(why) },
        None => Scale {
            replicas: facts.instances,
            leaving,
            progress: Progress::Scaling(format!("{} removed", listed(&all))),
        },
    }
}

fn listed(pods: &[String]) -> String {
    pods.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::tests::healthy;
    use super::*;

    #[test]
    fn growing_is_at_once() {
        let facts = Facts { instances: 5, ..healthy(3) };
        let scale = scale(&facts);
        assert_eq!((scale.replicas, scale.leaving.len()), (5, 0));
        assert!(matches!(scale.progress, Progress::Scaling(_)));
    }

    #[test]
    fn a_member_of_an_electorate_is_asked_to_leave_and_stays() {
        let scale = scale(&Facts { instances: 2, ..healthy(3) });
        assert_eq!(scale.replicas, 3);
        assert_eq!(scale.leaving, ["pg-2".to_owned()].into());
    }

    #[test]
    fn who_left_every_electorate_is_removed() {
        let mut facts = Facts { instances: 1, ..healthy(3) };
        facts.in_any_electorate.clear();
        assert_eq!(scale(&facts).replicas, 1);
    }

    #[test]
    fn the_master_is_never_removed() {
        let mut facts = Facts { instances: 2, leader: Some("pg-2".into()), ..healthy(3) };
        facts.in_any_electorate.clear();
        assert_eq!(scale(&facts).replicas, 3);
        assert!(scale(&facts).leaving.contains("pg-2"));
    }

    #[test]
    fn nobody_is_removed_while_there_is_no_master() {
        assert_eq!(scale(&Facts { instances: 1, leader: None, ..healthy(3) }).replicas, 3);
    }

    #[test]
    fn before_there_is_data_anybody_may_go() {
        let facts = Facts { instances: 1, leader: None, uninitialised: true, ..healthy(3) };
        assert_eq!(scale(&facts).replicas, 1);
    }
}
