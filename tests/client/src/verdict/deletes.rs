//! Rows that are deleted again: each attempt inserts its own row and deletes the one of ten numbers before.
//!
//! What must be there follows from two outcomes, that of a row's own attempt and that of the attempt which deletes it.

use std::collections::BTreeMap;

use super::Verdict;
use crate::attempt::Attempt;
use crate::outcome::Outcome;
use crate::workload::KEPT_FOR;

/// Compares a log with the rows that are there (number, count).
pub(crate) fn compare(attempts: &[Attempt], rows: &BTreeMap<i64, i64>) -> Verdict {
    let mut verdict = Verdict::default();
    let outcomes: BTreeMap<i64, Outcome> =
        attempts.iter().map(|attempt| (attempt.n, attempt.outcome)).collect();
    let in_flight = outcomes.keys().next_back().map_or(1, |last| last + 1);
    for (&n, &outcome) in &outcomes {
        let there = rows.contains_key(&n);
        let deleted = outcomes.get(&(n + KEPT_FOR)).copied();
        // An attempt on its way when the log was cut may have deleted it.
        let may_be_deleted = deleted == Some(Outcome::Unknown) || n + KEPT_FOR == in_flight;
        match (outcome, deleted) {
            (Outcome::Error, _) if there => verdict.note_phantom(true, "phantom (refused)", n),
            (_, Some(Outcome::Ok)) if there => verdict.note_phantom(true, "back after its deletion", n),
            (Outcome::Ok, Some(Outcome::Error) | None) if !there && !may_be_deleted => {
                verdict.lost += 1;
                verdict.note("lost", n);
            }
            (Outcome::Ok, _) => verdict.found += 1,
            (Outcome::Unknown, _) if there => verdict.unknown_present += 1,
            (Outcome::Unknown, _) => verdict.unknown_absent += 1,
            (Outcome::Error, _) => {}
        }
    }
    verdict.note_rows(rows, &outcomes, in_flight);
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::examples::attempt;
    use super::*;

    /// So many acknowledged attempts, but for these.
    fn attempts(count: i64, but: &[(i64, Outcome)]) -> Vec<Attempt> {
        let outcome =
            |n| but.iter().find(|(other, _)| *other == n).map_or(Outcome::Ok, |(_, outcome)| *outcome);
        (1..=count).map(|n| attempt(n, outcome(n), n.unsigned_abs())).collect()
    }

    fn rows(numbers: impl IntoIterator<Item = i64>) -> BTreeMap<i64, i64> {
        numbers.into_iter().map(|n| (n, 1)).collect()
    }

    #[test]
    fn only_the_last_ten_are_there_and_doubt_leaves_either() {
        assert!(compare(&attempts(25, &[]), &rows(16..=25)).is_clean());
        let doubtful = attempts(25, &[(21, Outcome::Unknown)]);
        assert!(compare(&doubtful, &rows(16..=25)).is_clean(), "it took effect");
        let without = rows([11].into_iter().chain(16..=20).chain(22..=25));
        assert!(compare(&doubtful, &without).is_clean(), "it took none");
        assert!(compare(&attempts(25, &[]), &rows(17..=26)).is_clean(), "one more was on its way");
    }

    #[test]
    fn a_row_that_is_back_after_its_deletion_is_resurrected() {
        let verdict = compare(&attempts(25, &[]), &rows([7].into_iter().chain(16..=25)));
        assert_eq!(verdict.violations(), [("resurrected", 1)]);
        assert_eq!(verdict.examples, ["back after its deletion 7"]);
    }

    #[test]
    fn a_row_whose_deletion_was_refused_must_be_there() {
        let refused = attempts(25, &[(21, Outcome::Error)]);
        let there = rows([11].into_iter().chain(16..=20).chain(22..=25));
        assert!(compare(&refused, &there).is_clean());
        assert_eq!(
            compare(&refused, &rows((16..=20).chain(22..=25))).violations(),
            [("acknowledged and lost", 1)]
        );
    }
}
