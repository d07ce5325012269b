//! One seed is one world: whatever the process, the thread, the environment and the number of others at work, every
//! event comes at the same time and everything said is the same. A failing seed that does not replay is worth nothing.

use std::fmt::Write;
use std::process::Command;

use sim::{Kind, run::digest};

const SEEDS: u64 = 2;
const KINDS: [(Kind, &[&str]); 3] = [
    (Kind { faults: true, asynchronous: false, focus: &[] }, &[]),
    (
        Kind { faults: true, asynchronous: false, focus: &["promotion", "change"] },
        &["--focus", "promotion,change"],
    ),
    (
        Kind { faults: true, asynchronous: true, focus: &["renewal"] },
        &["--asynchronous", "--focus", "renewal"],
    ),
];

fn here(kind: Kind) -> String {
    (1..=SEEDS).fold(String::new(), |mut all, seed| {
        writeln!(all, "{seed} {:016x}", digest(seed, kind)).expect("memory");
        all
    })
}

fn in_a_process_of_its_own(arguments: &[&str], jobs: &str, home: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_matriarch-sim"))
        .args(["--digest", "--seeds", &SEEDS.to_string(), "--jobs", jobs])
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .env("TZ", if jobs == "1" { "Asia/Kolkata" } else { "UTC" })
        .output()
        .expect("the simulator starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn one_seed_is_one_world_in_every_process() {
    for (kind, arguments) in KINDS {
        let first = here(kind);
        assert_eq!(first, here(kind), "{kind:?}: twice in one process");
        assert_eq!(first, in_a_process_of_its_own(arguments, "1", "/"), "{kind:?}: alone in a process");
        assert_eq!(first, in_a_process_of_its_own(arguments, "4", "/tmp"), "{kind:?}: on four threads");
    }
}

#[test]
fn another_seed_is_another_world() {
    let worlds: std::collections::BTreeSet<u64> =
        (1..=SEEDS).map(|seed| digest(seed, Kind::default())).collect();
    assert_eq!(worlds.len() as u64, SEEDS);
}
