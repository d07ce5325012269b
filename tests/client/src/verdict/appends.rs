//! Lists: every place from the first to the last holds exactly one append, acknowledged ones where they were said to be,
//! and one that was acknowledged before another began comes before it.
//!
//! The last is judged across all writers whose clocks are one. A doubtful append may come whenever it likes after it
//! began, so it can be too early and never too late.

use std::collections::BTreeMap;

use super::Verdict;
use crate::journal::Log;
use crate::outcome::Outcome;
use crate::workload;

/// One append that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// In this list.
    pub(crate) list: i32,
    /// At this place, from 1.
    pub(crate) position: i64,
    /// The writer's place among the logs; none for one without a log here.
    pub(crate) writer: Option<usize>,
    /// The attempt's number.
    pub(crate) n: i64,
}

/// Compares logs of one table with all its lists (identity, length) and appends.
///
/// Times of different logs are compared only where they are more than `skew` microseconds apart.
pub(crate) fn compare(
    logs: &[&Log],
    lengths: &BTreeMap<i32, i64>,
    mut entries: Vec<Entry>,
    skew: u64,
) -> Vec<Verdict> {
    entries.sort_unstable();
    let holes = holes(lengths, &entries);
    let mut verdicts: Vec<Verdict> =
        logs.iter().enumerate().map(|(writer, log)| one(writer, log, &entries)).collect();
    order(logs, &entries, skew, &mut verdicts);
    for verdict in &mut verdicts {
        verdict.holes = holes;
    }
    verdicts
}

fn one(writer: usize, log: &Log, entries: &[Entry]) -> Verdict {
    let mut places: BTreeMap<i64, Vec<Entry>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.writer == Some(writer)) {
        places.entry(entry.n).or_default().push(*entry);
    }
    let counts = places.iter().map(|(n, entries)| (*n, i64::try_from(entries.len()).unwrap_or(i64::MAX)));
    let mut verdict = super::compare(&log.attempts, &counts.collect());
    for attempt in &log.attempts {
        let (Some(position), Some(there)) = (attempt.position, places.get(&attempt.n)) else { continue };
        if there.iter().all(|entry| entry.position != position) {
            verdict.moved += 1;
            verdict.note("at another place", attempt.n);
        }
    }
    for (&n, there) in &places {
        if there.iter().any(|entry| entry.list != workload::list(n, log.identity.size)) {
            verdict.note_phantom(false, "in another list", n);
        }
    }
    verdict
}

fn holes(lengths: &BTreeMap<i32, i64>, entries: &[Entry]) -> u64 {
    let mut there: BTreeMap<(i32, i64), u64> = BTreeMap::new();
    for entry in entries {
        *there.entry((entry.list, entry.position)).or_default() += 1;
    }
    let beyond =
        |list: &i32, position: i64| position < 1 || position > lengths.get(list).copied().unwrap_or(0);
    let wrong =
        there.iter().filter(|((list, position), count)| **count > 1 || beyond(list, *position)).count();
    let empty = lengths.iter().map(|(list, length)| {
        let held =
            there.range((*list, 1)..).take_while(|((other, at), _)| other == list && at <= length).count();
        length.unsigned_abs().saturating_sub(u64::try_from(held).unwrap_or(u64::MAX))
    });
    u64::try_from(wrong).unwrap_or(u64::MAX) + empty.sum::<u64>()
}

/// Walks each list from its end, knowing when the earliest acknowledgement of what comes later was.
fn order(logs: &[&Log], entries: &[Entry], skew: u64, verdicts: &mut [Verdict]) {
    let times: Vec<BTreeMap<i64, (u64, Option<u64>)>> = logs
        .iter()
        .map(|log| {
            let told = |outcome, ended| (outcome == Outcome::Ok).then_some(ended);
            log.attempts.iter().map(|a| (a.n, (a.began, told(a.outcome, a.ended)))).collect()
        })
        .collect();
    let mut list = None;
    let mut later: BTreeMap<usize, u64> = BTreeMap::new();
    for entry in entries.iter().rev() {
        if list != Some(entry.list) {
            list = Some(entry.list);
            later.clear();
        }
        let Some(writer) = entry.writer else { continue };
        let Some(&(began, told)) = times.get(writer).and_then(|times| times.get(&entry.n)) else { continue };
        let overtaken = later
            .iter()
            .any(|(&other, &ended)| began > if other == writer { ended } else { ended.saturating_add(skew) });
        if overtaken && let Some(verdict) = verdicts.get_mut(writer) {
            verdict.reordered += 1;
            verdict.note("before one that was acknowledged first", entry.n);
        }
        if let Some(ended) = told {
            later.entry(writer).and_modify(|first| *first = ended.min(*first)).or_insert(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{attempt, log};
    use super::*;
    use crate::attempt::Attempt;

    fn appended(n: i64, at: u64, position: i64) -> Attempt {
        Attempt { position: Some(position), ..attempt(n, Outcome::Ok, at) }
    }

    fn entry(writer: usize, n: i64, position: i64) -> Entry {
        Entry { list: 0, position, writer: Some(writer), n }
    }

    fn lengths(length: i64) -> BTreeMap<i32, i64> {
        BTreeMap::from([(0, length)])
    }

    fn violations(verdict: &Verdict) -> Vec<(&'static str, u64)> {
        verdict.violations()
    }

    #[test]
    fn a_contiguous_history_in_order_is_clean_and_doubt_may_come_late() {
        let one = log([appended(1, 0, 1), attempt(2, Outcome::Unknown, 1), appended(3, 2, 3)]);
        let other = log([appended(1, 1, 2)]);
        let entries = vec![entry(0, 1, 1), entry(1, 1, 2), entry(0, 3, 3), entry(0, 2, 4)];
        for verdict in compare(&[&one, &other], &lengths(4), entries, 0) {
            assert!(verdict.is_clean(), "{verdict:?}");
        }
    }

    #[test]
    fn a_lost_append_leaves_its_place_to_another() {
        let one = log([appended(1, 0, 1), appended(2, 1, 2)]);
        let other = log([appended(1, 5, 2)]);
        let entries = vec![entry(0, 1, 1), entry(1, 1, 2)];
        let verdicts = compare(&[&one, &other], &lengths(2), entries, 0);
        assert_eq!(violations(&verdicts[0]), [("acknowledged and lost", 1)]);
        assert!(verdicts[1].is_clean());
    }

    #[test]
    fn an_append_that_is_there_twice_is_duplicated() {
        let one = log([appended(1, 0, 1)]);
        let verdicts = compare(&[&one], &lengths(2), vec![entry(0, 1, 1), entry(0, 1, 2)], 0);
        assert_eq!(violations(&verdicts[0]), [("duplicated", 1)]);
    }

    #[test]
    fn an_append_at_another_place_than_acknowledged_is_seen() {
        let one = log([appended(1, 0, 2), attempt(2, Outcome::Unknown, 0)]);
        let verdicts = compare(&[&one], &lengths(2), vec![entry(0, 1, 1), entry(0, 2, 2)], 0);
        assert_eq!(violations(&verdicts[0]), [("at another place than acknowledged", 1)]);
    }

    #[test]
    fn a_history_with_a_hole_or_two_in_one_place_is_seen() {
        let one = log([appended(1, 0, 1), appended(2, 1, 3)]);
        let gap = compare(&[&one], &lengths(3), vec![entry(0, 1, 1), entry(0, 2, 3)], 0);
        assert_eq!(violations(&gap[0]), [("places of lists with none or several", 1)]);
        let two = log([appended(1, 0, 1), appended(2, 1, 1)]);
        let twice = compare(&[&two], &lengths(1), vec![entry(0, 1, 1), entry(0, 2, 1)], 0);
        assert!(violations(&twice[0]).contains(&("places of lists with none or several", 1)));
        let short = compare(&[&one], &lengths(2), vec![entry(0, 1, 1), entry(0, 2, 3)], 0);
        assert_eq!(short[0].holes, 2, "one place beyond the length, one empty");
    }

    #[test]
    fn a_client_whose_later_append_comes_first_is_out_of_order() {
        let one = log([appended(1, 0, 2), appended(2, 1, 1)]);
        let verdicts = compare(&[&one], &lengths(2), vec![entry(0, 2, 1), entry(0, 1, 2)], 5_000_000);
        assert_eq!(violations(&verdicts[0]), [("out of order", 1)]);
    }

    #[test]
    fn order_across_clients_is_judged_beyond_the_skew_of_their_clocks() {
        let one = log([appended(1, 0, 2)]);
        let other = log([appended(1, 100, 1)]);
        let entries = || vec![entry(1, 1, 1), entry(0, 1, 2)];
        let verdicts = compare(&[&one, &other], &lengths(2), entries(), 0);
        assert_eq!(violations(&verdicts[1]), [("out of order", 1)]);
        assert!(compare(&[&one, &other], &lengths(2), entries(), 200_000)[1].is_clean());
    }

    #[test]
    fn an_append_in_another_list_is_seen() {
        let one = log([appended(1, 0, 1)]);
        let stray = Entry { list: 1, ..entry(0, 1, 1) };
        let lengths = BTreeMap::from([(0, 0), (1, 1)]);
        assert_eq!(
            violations(&compare(&[&one], &lengths, vec![stray], 0)[0]),
            [("there though nobody asked for it", 1)]
        );
    }
}
