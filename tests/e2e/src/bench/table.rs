//! Percentiles as a table of Markdown. Nearest rank: every figure was measured, none is between two.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::series::Line;

/// One row for each fault, setting and kind of connection.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut series: BTreeMap<(String, &str, &str), Vec<u64>> = BTreeMap::new();
    let mut rows: BTreeMap<(String, &str), (u64, u64)> = BTreeMap::new();
    for line in lines {
        let settings = line.settings.to_string();
        for (kind, gap) in &line.gap_ms {
            series.entry((settings.clone(), &line.fault, kind)).or_default().push(*gap);
        }
        let (acknowledged, lost) = rows.entry((settings, &line.fault)).or_default();
        *acknowledged += line.acknowledged;
        *lost += line.lost;
    }
    let mut out = String::from(
        "| settings | fault | connections | repetitions | p50 ms | p90 ms | p99 ms | max ms | acknowledged | lost |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for ((settings, fault, kind), mut gaps) in series {
        gaps.sort_unstable();
        let (acknowledged, lost) = rows.get(&(settings.clone(), fault)).copied().unwrap_or_default();
        let [p50, p90, p99, max] = [50, 90, 99, 100].map(|percent| percentile(&gaps, percent));
        let settings = if settings == "{}" { "defaults" } else { settings.as_str() };
        let _ = writeln!(
            out,
            "| {settings} | {fault} | {kind} | {} | {p50} | {p90} | {p99} | {max} | {acknowledged} | {lost} |",
            gaps.len()
        );
    }
    out
}

/// Of sorted values; 0 of none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<u64> = (1..=10).collect();
        assert_eq!([50, 90, 99, 100].map(|percent| percentile(&values, percent)), [5, 9, 10, 10]);
        assert_eq!(percentile(&[7], 50), 7);
        assert_eq!(percentile(&[], 50), 0);
    }
}
