//! Who must have flushed a commit, and whom a promotion must therefore have heard (§3, I4).
//!
//! Any `w` flushers and any `q = N − w + 1` sealed members of one electorate share a member;
//! the leader of an electorate flushed everything it ever had acknowledged.
//! The proof is `any_flushers_meet_any_sealed_members`, exhaustive for small electorates.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::types::MemberId;

/// The standbys whose flush counts, how many of them a commit needs, and the leader in whose term it was made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Electorate {
    /// The standbys. Empty: the leader commits alone.
    pub members: BTreeSet<MemberId>,
    /// w: flushes a commit needs besides the leader's own. 0 exactly when `members` is empty.
    pub acks: u32,
    /// The leader of the term in which it was made.
    pub leader: MemberId,
}

impl Electorate {
    /// An electorate of these standbys with as many acks as asked for and possible; the leader is never its own standby.
    pub fn new(leader: MemberId, mut members: BTreeSet<MemberId>, acks: u32) -> Self {
        members.remove(&leader);
        let n = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let acks = if n == 0 { 0 } else { acks.clamp(1, n) };
        Self { members, acks, leader }
    }

    /// q: how many sealed standbys a promotion needs. `None` when only the leader can satisfy it.
    pub fn seals_needed(&self) -> Option<usize> {
        let (n, w) = (self.members.len(), self.acks as usize);
        (n > 0 && w > 0).then(|| n.saturating_sub(w) + 1)
    }

    /// Whether these sealed members satisfy it: its leader, or q of its standbys.
    pub fn satisfied_by(&self, sealed: &BTreeSet<MemberId>) -> bool {
        sealed.contains(&self.leader)
            || self.seals_needed().is_some_and(|q| self.members.intersection(sealed).count() >= q)
    }

    /// Whether these flushers let a commit through: w of its standbys.
    pub fn acknowledged_by(&self, flushed: &BTreeSet<MemberId>) -> bool {
        self.members.intersection(flushed).count() >= self.acks as usize
    }
}

/// Whether the sealed members satisfy every electorate of a record (I4). An empty list is satisfied by nobody:
/// a record without electorates says nothing about who holds what.
pub fn satisfied(electorates: &[Electorate], sealed: &BTreeSet<MemberId>) -> bool {
    !electorates.is_empty() && electorates.iter().all(|e| e.satisfied_by(sealed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, MemberName};

    fn id(n: u64) -> MemberId {
        MemberId { name: MemberName(format!("pg-{n}")), incarnation: Incarnation(n) }
    }

    fn subset(mask: u32, n: u32) -> BTreeSet<MemberId> {
        (0..n).filter(|i| mask & (1 << i) != 0).map(|i| id(u64::from(i) + 1)).collect()
    }

    #[test]
    fn any_flushers_meet_any_sealed_members() {
        for n in 1..=5_u32 {
            for w in 1..=n {
                let electorate = Electorate::new(id(0), subset((1 << n) - 1, n), w);
                for flushed in 0..1 << n {
                    for sealed in 0..1 << n {
                        let (f, s) = (subset(flushed, n), subset(sealed, n));
                        if electorate.acknowledged_by(&f) && electorate.satisfied_by(&s) {
                            assert!(flushed & sealed != 0, "n={n} w={w}: {f:?} and {s:?} are disjoint");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_table_of_section_3() {
        for (n, w, q) in [(1, 1, 1), (2, 1, 2), (2, 2, 1), (4, 2, 3)] {
            assert_eq!(Electorate::new(id(0), subset((1 << n) - 1, n), w).seals_needed(), Some(q));
        }
        let alone = Electorate::new(id(0), BTreeSet::new(), 1);
        assert_eq!((alone.acks, alone.seals_needed()), (0, None));
        assert!(
            alone.satisfied_by(&BTreeSet::from([id(0)])) && !alone.satisfied_by(&BTreeSet::from([id(1)]))
        );
        assert!(!satisfied(&[], &BTreeSet::from([id(0)])));
    }
}
