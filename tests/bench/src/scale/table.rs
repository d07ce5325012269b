//! The lines as a table of Markdown: of each number of clusters the median and the worst repetition, of edits percentiles
//! of all.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::repetition::Line;
use crate::percentiles::{percentile, told};

/// One row for each number of clusters and members.
pub(super) fn table(lines: &[Line]) -> String {
    let mut rows: BTreeMap<(u32, u32, u64), Vec<&Line>> = BTreeMap::new();
    for line in lines {
        rows.entry((line.clusters, line.instances, line.rest_seconds)).or_default().push(line);
    }
    let mut out = String::from(
        "| clusters | members each | repetitions | leads after s | all applied after s | resident at rest MiB | peak MiB | core at rest % | requests per minute and cluster | rest s | edits | p50 ms | p90 ms | p99 ms | max ms |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for ((clusters, instances, rest), lines) in rows {
        let of = |figure: fn(&Line) -> f64, decimals: usize| {
            let [median, worst] = [50, 100]
                .map(|percent| told(percentile(lines.iter().map(|line| figure(line)), percent), decimals));
            if median == worst { median } else { format!("{median}, at most {worst}") }
        };
        let edits: Vec<f64> = lines.iter().flat_map(|line| line.edits_ms.iter().copied()).collect();
        let [p50, p90, p99, max] =
            [50, 90, 99, 100].map(|percent| told(percentile(edits.iter().copied(), percent), 0));
        let _ = writeln!(
            out,
            "| {clusters} | {instances} | {} | {} | {} | {} | {} | {} | {} | {rest} | {} | {p50} | {p90} | {p99} | {max} |",
            lines.len(),
            of(|line| line.leads_ms as f64 / 1000.0, 1),
            of(|line| line.applied_ms as f64 / 1000.0, 1),
            of(|line| line.at_rest.resident as f64 / 1024.0, 1),
            of(|line| line.at_end.peak as f64 / 1024.0, 1),
            of(|line| line.cores() * 100.0, 2),
            of(Line::requests_per_minute, 2),
            edits.len(),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Memory;

    #[test]
    fn a_row_tells_median_and_worst() {
        let line = |resident: u64, edits_ms: Vec<f64>| Line {
            at: String::new(),
            program_bytes: 1,
            clusters: 20,
            instances: 3,
            leads_ms: 200,
            applied_ms: 1500,
            rest_seconds: 60,
            at_rest: Memory { resident, peak: resident },
            computed_ms: 600,
            requests: 40,
            reconciliations: 0,
            edits_ms,
            at_end: Memory { resident, peak: 40960 },
        };
        let told = table(&[line(20480, vec![30.0, 10.0]), line(30720, vec![20.0])]);
        let row = told.lines().nth(2).unwrap();
        assert_eq!(
            row,
            "| 20 | 3 | 2 | 0.2 | 1.5 | 20.0, at most 30.0 | 40.0 | 1.00 | 2.00 | 60 | 3 | 20 | 30 | 30 | 30 |"
        );
    }
}
