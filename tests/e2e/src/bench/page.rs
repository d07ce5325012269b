//! The page of figures, made from the lines alone: the same file makes the same page on any machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::line::{Line, Series};
use super::machine::Machine;
use super::picture;
use super::table::{self, grouped};
use crate::faults::{Expected, Fault};

/// All of it. `pictures` is where the page finds them, relative to itself.
pub(crate) fn page(lines: &[Line], pictures: Option<&Path>) -> String {
    let mut out = String::from(
        "# Benchmarks: what clients see of a fault\n\n\
         Made by `cargo xtask bench failover --page docs/benchmarks.md`; do not edit.\n\n\
         Three members on three nodes of the rig (`cargo xtask rig up --fsync`: one machine, each node in namespaces of its own), \
         quorum durability with one acknowledgement. One client on another node than the master's writes single rows through \
         `pgwrite`, one connection kept (a row every 5 ms), one fresh for each row (every 25 ms). A figure is the longest time \
         without an acknowledged write from the fault until both write again, from the clients' own logs; the epoch is when an \
         observer of the record saw the next one open. Afterwards everything acknowledged is looked for in the database: `lost` \
         counts what is missing. A repetition that lost something, or was not whole again without a human, is a failed one; its \
         times are among the percentiles all the same. Percentiles are of the nearest rank; the 99th is only given of a hundred repetitions or more.\n\n\
         ## Longest time without an acknowledged write\n\n",
    );
    out.push_str(&table::table(lines));
    if let Some(table) = table::isolated(lines) {
        out.push_str(
            "\n## The old master on the cut-off side\n\nWhat a kept session on its own node, at its own address, was still \
             acknowledged after the cut was made.\n\n",
        );
        out.push_str(&table);
    }
    faults(&mut out, lines);
    failures(&mut out, lines);
    if let Some(directory) = pictures {
        shown(&mut out, lines, directory);
    }
    machines(&mut out, lines);
    commands(&mut out, lines);
    out
}

fn faults(out: &mut String, lines: &[Line]) {
    let used: BTreeSet<&str> = lines.iter().map(|line| line.fault.as_str()).collect();
    out.push_str("\n## The faults\n\n| fault | what it is | expected |\n|---|---|---|\n");
    for fault in Fault::ALL.into_iter().filter(|fault| used.contains(fault.name())) {
        let expected = match fault.expected() {
            Expected::NewEpoch => "a new epoch",
            Expected::Nothing => "no new epoch; the time without a write is the longest while it lasted",
        };
        let _ = writeln!(out, "| {} | {} | {expected} |", fault.name(), fault.about());
    }
}

fn failures(out: &mut String, lines: &[Line]) {
    let failed: Vec<&Line> = lines.iter().filter(|line| line.failure.is_some()).collect();
    let _ = writeln!(out, "\n## Failed repetitions\n\n{} of {}.", failed.len(), lines.len());
    if failed.is_empty() {
        return;
    }
    out.push_str("\n| when | system | settings | fault | longest gap ms | what went wrong |\n|---|---|---|---|---|---|\n");
    for line in failed {
        let series = line.series();
        let what: String = line.failure.iter().flat_map(|text| text.chars()).take(300).collect();
        let what = what.replace('|', "\\|").replace('\n', " ");
        let settings = table::settings(&series);
        let gap = line.longest_gap().map_or_else(|| "-".to_owned(), |ms| ms.to_string());
        let _ =
            writeln!(out, "| {} | {} | {settings} | {} | {gap} | {what} |", line.at, series.peer, line.fault);
    }
}

fn shown(out: &mut String, lines: &[Line], directory: &Path) {
    let pictures = picture::chosen(lines);
    if pictures.is_empty() {
        return;
    }
    out.push_str(
        "\n## Pictures\n\nOf each fault the repetition with the median of the longest gaps: acknowledged writes in 50 ms, \
         who led, and each member's label.\n",
    );
    for (file, line) in pictures {
        let series = line.series();
        let title = format!("{}, {}: {}", series.peer, table::settings(&series), line.fault);
        let _ = write!(out, "\n![{title}]({})\n", directory.join(file).display());
    }
}

fn machines(out: &mut String, lines: &[Line]) {
    let mut machines: BTreeMap<(Machine, Option<&str>), usize> = BTreeMap::new();
    for line in lines {
        *machines.entry((line.machine.clone(), line.postgres.as_deref())).or_insert(0) += 1;
    }
    out.push_str(
        "\n## Machine\n\n| cores | memory GiB | kernel | Kubernetes | PostgreSQL | commit | repetitions |\n|---|---|---|---|---|---|---|\n",
    );
    for ((machine, postgres), count) in machines {
        let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {count} |",
            or(machine.cores.map(|cores| cores.to_string())),
            or(machine.memory_gib.map(|gib| gib.to_string())),
            or(machine.kernel),
            or(machine.kubernetes),
            postgres.unwrap_or("-"),
            or(machine.commit),
        );
    }
}

fn commands(out: &mut String, lines: &[Line]) {
    let mut series: BTreeMap<Series, (Vec<String>, usize)> = BTreeMap::new();
    for ((of, fault), lines) in grouped(lines) {
        // A peer is measured in several forms by one command, such as `patroni-fastest`, and ours along with it.
        let peer = of.peer.split('-').next().unwrap_or_default().to_owned();
        let (faults, reps) = series.entry(Series { peer, ..of }).or_default();
        if !faults.contains(&fault) {
            faults.push(fault);
        }
        *reps = (*reps).max(lines.len());
    }
    out.push_str("\n## Again\n\n```sh\n");
    for (of, (faults, reps)) in series {
        let peer = if of.peer == "matriarch" { String::new() } else { format!(" --peer {}", of.peer) };
        let settings =
            if of.settings == "{}" { String::new() } else { format!(" --settings '{}'", of.settings) };
        let slices = if of.slice_changes { " --slice-changes" } else { "" };
        let faults = faults.join(",");
        let _ = writeln!(
            out,
            "cargo xtask bench failover --faults {faults} --reps {reps}{peer}{settings}{slices}"
        );
    }
    out.push_str("```\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_failures_machines_and_the_command() {
        let line = |fault: &str, slice_changes: bool| Line {
            fault: fault.to_owned(),
            peer: "matriarch".to_owned(),
            settings: serde_json::json!({}),
            slice_changes,
            gap_ms: [("kept".to_owned(), 700)].into(),
            machine: Machine { cores: Some(2), kernel: Some("6.18".to_owned()), ..Machine::default() },
            ..Line::default()
        };
        let failed = Line { failure: Some("not | whole\nagain".to_owned()), ..line("delete", false) };
        let patroni = |form: &str| Line { peer: format!("patroni-{form}"), ..line("delete", false) };
        let lines = [
            line("node-power", false),
            line("delete", false),
            failed,
            line("delete", true),
            patroni("a"),
            patroni("b"),
        ];
        let page = page(&lines, None);
        for expected in [
            "| matriarch | defaults | delete | kept | 2 | 1 | 700 |",
            "| matriarch | defaults, slice changes | delete | kept | 1 | 0 | 700 |",
            "1 of 6.",
            "| delete | 700 | not \\| whole again |",
            "| 2 | - | 6.18 | - | - | - | 6 |",
            "cargo xtask bench failover --faults delete,node-power --reps 2\n",
            "cargo xtask bench failover --faults delete --reps 1 --slice-changes\n",
            "--slice-changes\ncargo xtask bench failover --faults delete --reps 1 --peer patroni\n```",
            "| node-power | node power-cut | a new epoch |",
        ] {
            assert!(page.contains(expected), "{expected} is not in\n{page}");
        }
        assert!(!page.contains("## Pictures"));
    }
}
