//! A few seeds of each kind on every test run; the long form is `matriarch-sim --seeds N`.

use ha::Rules;
use sim::mutation::WorldRules;
use sim::{Kind, Mutation, Outcome, run};

fn seed(seed: u64, kind: Kind) -> Outcome {
    run(seed, Rules::default(), WorldRules::default(), kind, false)
}

#[test]
fn faults_break_no_invariant() {
    for n in 1..=40 {
        let outcome = seed(n, Kind::default());
        assert_eq!(outcome.violation, None, "replay with matriarch-sim --seed {n}");
    }
}

#[test]
fn l3_without_faults_the_leader_does_not_change() {
    for n in 1..=15 {
        let outcome = seed(n, Kind { faults: false, ..Kind::default() });
        assert_eq!((outcome.violation, outcome.elections, outcome.epochs), (None, 0, 1), "seed {n}");
    }
}

#[test]
fn l2_without_faults_the_record_is_not_written() {
    for n in 1..=15 {
        assert_eq!(seed(n, Kind { faults: false, ..Kind::default() }).late_writes, 0, "seed {n}");
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    let (one, two) = (seed(7, Kind::default()), seed(7, Kind::default()));
    assert_eq!((one.events, one.acknowledged, one.epochs), (two.events, two.acknowledged, two.epochs));
}

#[test]
fn a_rule_that_is_switched_off_is_caught() {
    for name in ["newest-electorate-only", "any-position", "single-change", "reply-before-flush"] {
        let (rules, world_rules) = Mutation::named(name).expect("listed").rules();
        let caught =
            (1..=200).any(|n| run(n, rules, world_rules, Kind::default(), false).violation.is_some());
        assert!(caught, "{name}");
    }
}

#[test]
fn the_published_table_names_every_mutation() {
    // From the package's directory, where cargo runs tests.
    let document = std::fs::read_to_string("../../docs/protocol.md").expect("docs/protocol.md");
    sim::table::check(&document).expect("cargo xtask sim --mutations --write");
}
