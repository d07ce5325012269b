//! What the database must contain by a log, against what it contains; and what a log proves by itself.
//!
//! Every ok exactly once, every definite error absent, unknown either way; rows that nobody attempted are phantoms (S2).
//! Each verdict is a pure function of logs and rows, with a test in its file in which it is red.

pub(crate) mod appends;
pub(crate) mod deletes;
#[cfg(test)]
pub(crate) mod examples;
pub(crate) mod members;
pub(crate) mod observed;
pub(crate) mod transfers;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::attempt::Attempt;
use crate::outcome::Outcome;

/// Numbers of examples that a verdict names.
const EXAMPLES: usize = 20;

/// What was found about a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// Acknowledged attempts whose effect is missing.
    pub(crate) lost: u64,
    /// Attempts that are there more than once.
    pub(crate) duplicated: u64,
    /// Rows that must not be there: refused, deleted, never attempted, or other than what was asked for.
    pub(crate) phantom: u64,
    /// Those of them that were refused, or deleted and are back.
    pub(crate) resurrected: u64,
    /// Acknowledged attempts whose effect was found.
    pub(crate) found: u64,
    /// Doubtful attempts that took effect.
    pub(crate) unknown_present: u64,
    /// Doubtful attempts that did not.
    pub(crate) unknown_absent: u64,
    /// Appends that come after one that was acknowledged before they began came before it.
    pub(crate) reordered: u64,
    /// Acknowledged appends at another place than the acknowledged one.
    pub(crate) moved: u64,
    /// Places of lists that hold nothing, or more than one append, of all writers.
    pub(crate) holes: u64,
    /// Accounts, and their sum, that do not hold what all transfers that are there make of them.
    pub(crate) unbalanced: u64,
    /// Acknowledgements of a member after another one had acknowledged on a later timeline.
    pub(crate) stale: u64,
    /// How long that went on, in milliseconds, from the first acknowledgement on the later timeline.
    pub(crate) stale_ms: u64,
    /// The first numbers of each kind that went wrong.
    pub(crate) examples: Vec<String>,
}

impl Verdict {
    /// The broken promises, with how often each was broken.
    pub(crate) fn violations(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("acknowledged and lost", self.lost),
            ("duplicated", self.duplicated),
            ("resurrected", self.resurrected),
            ("there though nobody asked for it", self.phantom.saturating_sub(self.resurrected)),
            ("out of order", self.reordered),
            ("at another place than acknowledged", self.moved),
            ("places of lists with none or several", self.holes),
            ("sums that are not kept", self.unbalanced),
            ("acknowledged by a superseded member", self.stale),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// Whether nothing went wrong.
    #[cfg(test)]
    pub(crate) fn is_clean(&self) -> bool {
        self.violations().is_empty()
    }

    fn note(&mut self, what: &str, n: i64) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{what} {n}"));
        }
    }

    fn note_phantom(&mut self, resurrected: bool, what: &str, n: i64) {
        self.phantom += 1;
        self.resurrected += u64::from(resurrected);
        self.note(what, n);
    }

    /// What rows (number, count) say by themselves: none twice, and none that nobody attempted.
    fn note_rows(&mut self, rows: &BTreeMap<i64, i64>, outcomes: &BTreeMap<i64, Outcome>, in_flight: i64) {
        for (&n, &count) in rows {
            if count > 1 {
                self.duplicated += 1;
                self.note("duplicated", n);
            }
            if !outcomes.contains_key(&n) && n != in_flight {
                self.note_phantom(false, "phantom (never attempted)", n);
            }
        }
    }
}

/// Compares a log of single rows with those that are there (number, count).
///
/// One number above the last logged one may be there: it was on its way when the log was cut.
pub(crate) fn compare(attempts: &[Attempt], rows: &BTreeMap<i64, i64>) -> Verdict {
    let mut verdict = Verdict::default();
    let outcomes: BTreeMap<i64, Outcome> =
        attempts.iter().map(|attempt| (attempt.n, attempt.outcome)).collect();
    let in_flight = outcomes.keys().next_back().map_or(1, |last| last + 1);
    for (&n, &outcome) in &outcomes {
        let there = rows.contains_key(&n);
        match outcome {
            Outcome::Ok if there => verdict.found += 1,
            Outcome::Ok => {
                verdict.lost += 1;
                verdict.note("lost", n);
            }
            Outcome::Error if there => verdict.note_phantom(true, "phantom (refused)", n),
            Outcome::Error => {}
            Outcome::Unknown if there => verdict.unknown_present += 1,
            Outcome::Unknown => verdict.unknown_absent += 1,
        }
    }
    verdict.note_rows(rows, &outcomes, in_flight);
    verdict
}

#[cfg(test)]
mod tests {
    use super::examples::attempt;
    use super::*;

    #[test]
    fn a_clean_run_is_clean_and_unknown_may_be_either() {
        let log = [
            attempt(1, Outcome::Ok, 0),
            attempt(2, Outcome::Unknown, 1),
            attempt(3, Outcome::Unknown, 2),
            attempt(4, Outcome::Error, 3),
        ];
        let verdict = compare(&log, &BTreeMap::from([(1, 1), (3, 1), (5, 1)]));
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.found, verdict.unknown_present, verdict.unknown_absent), (1, 1, 1));
    }

    #[test]
    fn an_acknowledged_row_that_is_missing_is_lost() {
        let log = [attempt(1, Outcome::Ok, 0), attempt(2, Outcome::Ok, 1)];
        let verdict = compare(&log, &BTreeMap::from([(1, 1)]));
        assert_eq!(verdict.violations(), [("acknowledged and lost", 1)]);
        assert_eq!(verdict.examples, ["lost 2"]);
    }

    #[test]
    fn a_row_that_is_there_twice_is_duplicated() {
        let log = [attempt(1, Outcome::Ok, 0), attempt(2, Outcome::Unknown, 1)];
        let verdict = compare(&log, &BTreeMap::from([(1, 1), (2, 2)]));
        assert_eq!(verdict.violations(), [("duplicated", 1)]);
    }

    #[test]
    fn a_refused_row_that_is_there_is_resurrected() {
        let verdict = compare(&[attempt(1, Outcome::Error, 0)], &BTreeMap::from([(1, 1)]));
        assert_eq!((verdict.violations(), verdict.phantom), (vec![("resurrected", 1)], 1));
    }

    #[test]
    fn a_row_that_nobody_attempted_is_a_phantom() {
        let verdict = compare(&[attempt(1, Outcome::Ok, 0)], &BTreeMap::from([(1, 1), (9, 1)]));
        assert_eq!(verdict.violations(), [("there though nobody asked for it", 1)]);
    }
}
