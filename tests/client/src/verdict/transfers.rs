//! Transfers: each one there as a whole exactly once or not at all, and the sum of all accounts kept.

use std::collections::BTreeMap;

use super::Verdict;
use crate::attempt::Attempt;
use crate::workload::{INITIAL, Transfer, transfer};

/// A transfer as it was found, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The first of that number.
    pub(crate) what: Transfer,
    /// How many of that number.
    pub(crate) count: i64,
}

/// All accounts of one snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// How many there are.
    pub(crate) accounts: i64,
    /// What they hold together.
    pub(crate) sum: i64,
    /// How many hold something else than all transfers of the same snapshot make of them.
    pub(crate) off: i64,
}

impl Ledger {
    /// What is not kept: accounts that are off, their sum, and whether there are too few.
    pub(crate) fn unbalanced(&self, size: i32) -> u64 {
        self.off.unsigned_abs()
            + u64::from(self.sum != self.accounts.saturating_mul(INITIAL))
            + u64::from(self.accounts < i64::from(size))
    }
}

/// Compares a log with the transfers that are there, and with all accounts.
pub(crate) fn compare(
    attempts: &[Attempt],
    size: i32,
    found: &BTreeMap<i64, Found>,
    ledger: &Ledger,
) -> Verdict {
    let counts = found.iter().map(|(n, found)| (*n, found.count)).collect();
    let mut verdict = super::compare(attempts, &counts);
    for (&n, found) in found {
        if found.what != transfer(n, size) {
            verdict.note_phantom(false, "another transfer than asked for", n);
        }
    }
    verdict.unbalanced = ledger.unbalanced(size);
    if verdict.unbalanced > 0 {
        verdict.note(&format!("{} accounts with a sum of {}, off", ledger.accounts, ledger.sum), ledger.off);
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::examples::attempt;
    use super::*;
    use crate::outcome::Outcome;

    const KEPT: Ledger = Ledger { accounts: 4, sum: 4 * INITIAL, off: 0 };

    fn found(numbers: &[i64]) -> BTreeMap<i64, Found> {
        numbers.iter().map(|&n| (n, Found { what: transfer(n, 4), count: 1 })).collect()
    }

    fn attempts() -> [Attempt; 2] {
        [attempt(1, Outcome::Ok, 0), attempt(2, Outcome::Unknown, 1)]
    }

    #[test]
    fn what_was_asked_for_is_clean_and_doubt_is_told_apart() {
        let verdict = compare(&attempts(), 4, &found(&[1, 2]), &KEPT);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.found, verdict.unknown_present), (1, 1));
    }

    #[test]
    fn a_sum_that_is_not_kept_is_seen() {
        for broken in [
            Ledger { sum: KEPT.sum - 1, ..KEPT },
            Ledger { off: 1, ..KEPT },
            Ledger { accounts: 3, sum: 3 * INITIAL, off: 0 },
        ] {
            let verdict = compare(&attempts(), 4, &found(&[1]), &broken);
            assert_eq!(verdict.violations(), [("sums that are not kept", 1)], "{broken:?}");
        }
    }

    #[test]
    fn another_transfer_than_asked_for_is_seen() {
        let mut there = found(&[1]);
        there.insert(2, Found { what: Transfer { source: 0, target: 1, amount: 1 }, count: 1 });
        let verdict = compare(&attempts(), 4, &there, &KEPT);
        assert_eq!(verdict.violations(), [("there though nobody asked for it", 1)]);
    }
}
