//! Percentiles as a table of Markdown. Nearest rank: every figure was measured, none is between two.
//!
//! A repetition that failed is counted as such, and its times count like any other's: without them the figures would be the
//! better the more fails. A 99th percentile of less than a hundred repetitions would be their maximum by another name, so
//! there is none.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::line::{Line, Series};
use super::targets::target;
use crate::faults::Fault;

/// Repetitions that a 99th percentile needs.
const ENOUGH: usize = 100;

/// One row for each fault, setting and kind of connection, in the order in which faults are listed.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut out = String::from(
        "| system | settings | fault | connections | repetitions | failed | p50 ms | p90 ms | p99 ms | max ms | target p50 / p99 ms | epoch p50 ms | acknowledged | lost |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for ((series, fault), lines) in grouped(lines) {
        let failed = lines.iter().filter(|line| line.failure.is_some()).count();
        let lost: u64 = lines.iter().map(|line| line.lost).sum();
        let acknowledged: u64 = lines.iter().map(|line| line.acknowledged).sum();
        let epochs = sorted(lines.iter().filter_map(|line| line.epoch_ms));
        let mut kinds: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (kind, gap) in lines.iter().flat_map(|line| &line.gap_ms) {
            kinds.entry(kind).or_default().push(*gap);
        }
        if kinds.is_empty() {
            kinds.insert("-", Vec::new());
        }
        for (kind, gaps) in kinds {
            let gaps = sorted(gaps);
            let p99 = if gaps.len() < ENOUGH { None } else { percentile(&gaps, 99) };
            let promised = target(&fault, series.slice_changes).filter(|_| series.peer == "matriarch");
            let promised =
                promised.map_or_else(|| "-".to_owned(), |target| format!("{} / {}", target.p50, target.p99));
            let _ = writeln!(
                out,
                "| {} | {} | {fault} | {kind} | {} | {failed} | {} | {} | {} | {} | {promised} | {} | {acknowledged} | {lost} |",
                series.peer,
                settings(&series),
                gaps.len(),
                shown(percentile(&gaps, 50)),
                shown(percentile(&gaps, 90)),
                shown(p99),
                shown(percentile(&gaps, 100)),
                shown(percentile(&epochs, 50)),
            );
        }
    }
    out
}

/// What a session on the cut-off side was told, one row for each fault and setting that has one; none without any.
pub(crate) fn isolated(lines: &[Line]) -> Option<String> {
    let mut out = String::from(
        "| system | settings | fault | repetitions | acknowledged after the cut | for at most ms |\n|---|---|---|---|---|---|\n",
    );
    let mut any = false;
    for ((series, fault), lines) in grouped(lines) {
        let told: Vec<_> = lines.iter().filter_map(|line| line.isolated).collect();
        let Some(longest) = told.iter().map(|told| told.for_ms).max() else { continue };
        let rows: u64 = told.iter().map(|told| told.acknowledged).sum();
        let settings = settings(&series);
        let _ =
            writeln!(out, "| {} | {settings} | {fault} | {} | {rows} | {longest} |", series.peer, told.len());
        any = true;
    }
    any.then_some(out)
}

/// Lines by what they belong to, faults in the order of their list.
pub(crate) fn grouped(lines: &[Line]) -> Vec<((Series, String), Vec<&Line>)> {
    let order = |name: &str| Fault::ALL.iter().position(|fault| fault.name() == name).unwrap_or(usize::MAX);
    let mut groups: BTreeMap<(Series, usize, &str), Vec<&Line>> = BTreeMap::new();
    for line in lines {
        groups.entry((line.series(), order(&line.fault), &line.fault)).or_default().push(line);
    }
    groups.into_iter().map(|((series, _, fault), lines)| ((series, fault.to_owned()), lines)).collect()
}

/// For readers of a table.
pub(crate) fn settings(series: &Series) -> String {
    let settings =
        if series.settings == "{}" { "defaults".to_owned() } else { format!("`{}`", series.settings) };
    if series.slice_changes { format!("{settings}, slice changes") } else { settings }
}

fn sorted(values: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut values: Vec<u64> = values.into_iter().collect();
    values.sort_unstable();
    values
}

fn shown(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Of sorted values; none of none.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::super::isolated::Isolated;
    use super::*;

    fn line(fault: &str, kept: u64) -> Line {
        Line {
            fault: fault.to_owned(),
            peer: "matriarch".to_owned(),
            settings: serde_json::json!({}),
            epoch_ms: Some(kept / 2),
            gap_ms: [("kept".to_owned(), kept)].into(),
            acknowledged: 10,
            ..Line::default()
        }
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<u64> = (1..=10).collect();
        assert_eq!([50, 90, 99, 100].map(|percent| percentile(&values, percent)), [5, 9, 10, 10].map(Some));
        assert_eq!(percentile(&[7], 50), Some(7));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn a_failed_repetition_is_counted_and_so_are_its_times() {
        let failed = Line { failure: Some("not whole".to_owned()), lost: 2, ..line("delete", 90_000) };
        let never = Line {
            failure: Some("not whole".to_owned()),
            gap_ms: BTreeMap::new(),
            epoch_ms: None,
            ..line("postmaster", 0)
        };
        let lines = [never, line("delete", 700), line("delete", 900), failed];
        let table = table(&lines);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| matriarch | defaults | postmaster | - | 0 | 1 | - | - | - | - | 600 / 1500 | - | 10 | 0 |",
                "| matriarch | defaults | delete | kept | 3 | 1 | 900 | 90000 | - | 90000 | 1000 / 2000 | 450 | 30 | 2 |",
            ]
        );
    }

    #[test]
    fn what_an_isolated_master_acknowledged_is_a_table_of_its_own() {
        let told = |acknowledged, for_ms| Some(Isolated { acknowledged, for_ms });
        let cut = |isolated| Line { isolated, ..line("node-network", 1) };
        assert_eq!(isolated(&[line("delete", 1)]), None);
        let table = isolated(&[cut(told(0, 0)), cut(told(3, 70)), line("delete", 1)]).unwrap();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(rows, ["| matriarch | defaults | node-network | 2 | 3 | 70 |"]);
    }

    #[test]
    fn the_99th_percentile_needs_a_hundred_repetitions() {
        let lines: Vec<Line> = (1..=100).map(|ms| line("delete", ms)).collect();
        assert!(table(&lines).contains("| 100 | 0 | 50 | 90 | 99 | 100 |"));
        assert!(table(&lines[..99]).contains("| 99 | 0 | 50 | 90 | - | 99 |"));
    }
}
