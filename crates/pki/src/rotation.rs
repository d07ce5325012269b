//! In which order a new authority replaces an old one (K10), as a pure decision.
//!
//! Members get Secrets late and each at its own time. So: publish the new authority beside the old one, wait
//! until *every* member says that it trusts both, only then sign with the new one, and only when no leaf of
//! the old one is left in use, stop trusting it. Each step is derived from what is observed, never from a
//! remembered phase: an operator that dies between two steps goes on where the objects stand.

use crate::bundle::Fingerprint;
use std::collections::{BTreeMap, BTreeSet};

/// What the operator sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The authority that signs now.
    pub current: Fingerprint,
    /// The signing authority has lived two thirds of its life, or somebody asked for a new one.
    pub renewal_due: bool,
    /// The successor, when one was made.
    pub next: Option<Fingerprint>,
    /// What the published bundle trusts.
    pub bundle: BTreeSet<Fingerprint>,
    /// What each member says it trusts; `None` for one that has not said (unknown is not trust).
    pub members: BTreeMap<String, Option<BTreeSet<Fingerprint>>>,
    /// Authorities that signed a leaf which is in use: of members' reports and of the Secrets.
    pub in_use: BTreeSet<Fingerprint>,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Steady,
    /// Make the successor and store it.
    MakeNext,
    /// Publish a bundle of exactly these.
    Publish(BTreeSet<Fingerprint>),
    /// These members do not yet trust the successor.
    AwaitMembers(BTreeSet<String>),
    /// Make the successor the signing authority and re-issue every leaf.
    SignWithNext(Fingerprint),
    /// Leaves of these authorities are still in use.
    AwaitLeaves(BTreeSet<Fingerprint>),
}

/// Decides the next step.
#[must_use]
pub fn next_step(observed: &Observed) -> Step {
    let Some(next) = observed.next else {
        return without_successor(observed);
    };
    let wanted: BTreeSet<_> = observed.bundle.iter().copied().chain([observed.current, next]).collect();
    if observed.bundle != wanted {
        return Step::Publish(wanted);
    }
    let missing: BTreeSet<String> = observed
        .members
        .iter()
        .filter(|(_, trusts)| !trusts.as_ref().is_some_and(|trusts| trusts.contains(&next)))
        .map(|(name, _)| name.clone())
        .collect();
    if missing.is_empty() { Step::SignWithNext(next) } else { Step::AwaitMembers(missing) }
}

fn without_successor(observed: &Observed) -> Step {
    if !observed.bundle.contains(&observed.current) {
        return Step::Publish(observed.bundle.iter().copied().chain([observed.current]).collect());
    }
    let retired: BTreeSet<_> = observed.bundle.iter().copied().filter(|a| *a != observed.current).collect();
    if !retired.is_empty() {
        let used: BTreeSet<_> = retired.intersection(&observed.in_use).copied().collect();
        return if used.is_empty() {
            Step::Publish([observed.current].into())
        } else {
            Step::AwaitLeaves(used)
        };
    }
    if observed.renewal_due { Step::MakeNext } else { Step::Steady }
}

#[cfg(test)]
mod tests {
    use super::{Observed, Step, next_step};
    use crate::bundle::Fingerprint;

    fn print(of: u8) -> Fingerprint {
        Fingerprint::of_der(&[of])
    }

    /// K10: walks a whole rotation; members learn of a bundle only when `tell` says so.
    #[test]
    fn a_rotation_waits_for_every_member_before_it_signs_and_for_every_leaf_before_it_forgets() {
        let (old, new) = (print(1), print(2));
        let mut seen = Observed {
            current: old,
            renewal_due: true,
            next: None,
            bundle: [old].into(),
            members: [("pg-0".into(), Some([old].into())), ("pg-1".into(), None)].into(),
            in_use: [old].into(),
        };
        assert_eq!(next_step(&seen), Step::MakeNext);
        seen.next = Some(new);
        assert_eq!(next_step(&seen), Step::Publish([old, new].into()));
        seen.bundle = [old, new].into();
        assert_eq!(next_step(&seen), Step::AwaitMembers(["pg-0".into(), "pg-1".into()].into()));
        seen.members.insert("pg-0".into(), Some([old, new].into()));
        assert_eq!(next_step(&seen), Step::AwaitMembers(["pg-1".into()].into()), "silence is not trust");
        seen.members.insert("pg-1".into(), Some([old, new].into()));
        assert_eq!(next_step(&seen), Step::SignWithNext(new));
        (seen.current, seen.next, seen.renewal_due) = (new, None, false);
        assert_eq!(next_step(&seen), Step::AwaitLeaves([old].into()));
        seen.in_use = [new].into();
        assert_eq!(next_step(&seen), Step::Publish([new].into()));
        seen.bundle = [new].into();
        assert_eq!(next_step(&seen), Step::Steady);
    }
}
