//! The lines as tables of Markdown: commits and latency by number of clients, then agents and supervisors at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::Storage;
use super::load::Seen;
use super::repetition::Line;
use crate::percentiles::{percentile, told};

/// What a row is of: where the data is, version, scale, seconds.
type Key = (Storage, u16, u32, u64);

fn key(line: &Line) -> Key {
    let it = &line.settings;
    (it.storage, it.major, it.scale, it.seconds)
}

/// Both tables.
pub(super) fn table(lines: &[Line]) -> String {
    let mut out = String::from(
        "| storage | PostgreSQL | clients | repetitions | bare commits/s | with agent commits/s | share of bare % | bare p50 ms | with agent p50 ms | bare p99 ms | with agent p99 ms |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut rows: BTreeMap<(Key, u32), Vec<(&Seen, &Seen)>> = BTreeMap::new();
    for line in lines {
        for (with, bare) in line.agents.iter().zip(&line.bare) {
            rows.entry((key(line), with.clients)).or_default().push((with, bare));
        }
    }
    for (((storage, major, ..), clients), pairs) in rows {
        let median = |of: &dyn Fn(&(&Seen, &Seen)) -> f64| percentile(pairs.iter().map(of), 50);
        let bare = median(&|(_, bare)| bare.commits);
        let with = median(&|(with, _)| with.commits);
        let shares = || pairs.iter().map(|(with, bare)| with.commits / bare.commits * 100.0);
        let lowest = shares().fold(f64::INFINITY, f64::min);
        let share = with.zip(bare).map(|(with, bare)| with / bare * 100.0);
        let _ = writeln!(
            out,
            "| {} | {major} | {clients} | {} | {} | {} | {} ({lowest:.1} to {}) | {} | {} | {} | {} |",
            word(storage),
            pairs.len(),
            told(bare, 0),
            told(with, 0),
            told(share, 1),
            told(percentile(shares(), 100), 1),
            told(median(&|(_, bare)| bare.p50), 2),
            told(median(&|(with, _)| with.p50), 2),
            told(median(&|(_, bare)| bare.p99), 2),
            told(median(&|(with, _)| with.p99), 2),
        );
    }
    out.push('\n');
    at_rest(lines, &mut out);
    out
}

fn at_rest(lines: &[Line], out: &mut String) {
    out.push_str(
        "| at rest | of the | looked at | resident MiB | at most MiB | of that anonymous MiB | core % | at most % |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let all = || lines.iter().flat_map(|line| &line.idle);
    let kinds: BTreeSet<(&str, bool)> = all().map(|it| (it.process.as_str(), it.master)).collect();
    for (process, master) in kinds {
        let these: Vec<_> = all().filter(|it| it.process == process && it.master == master).collect();
        let resident = || these.iter().map(|it| it.memory.resident as f64 / 1024.0);
        let cores = || these.iter().map(|it| it.cores * 100.0);
        let _ = writeln!(
            out,
            "| {process} | {} | {} | {} | {} | {} | {} | {} |",
            if master { "master" } else { "standby" },
            these.len(),
            told(percentile(resident(), 50), 1),
            told(percentile(resident(), 100), 1),
            told(percentile(these.iter().map(|it| it.anonymous as f64 / 1024.0), 50), 1),
            told(percentile(cores(), 50), 2),
            told(percentile(cores(), 100), 2),
        );
    }
}

fn word(storage: Storage) -> &'static str {
    match storage {
        Storage::Disk => "disk",
        Storage::Memory => "memory",
    }
}
