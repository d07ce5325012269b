//! What every test run affords, unoptimised: the smallest bound, and rules whose lack it finds at once.

use model::{Bound, Mutation, check};

#[test]
fn every_state_of_the_smallest_bound_keeps_every_invariant() {
    let verdict = check(Bound::named("tiny").expect("listed"), None);
    assert_eq!(verdict.broken, None);
    assert!(verdict.unreached.is_empty(), "{:?}", verdict.unreached);
    assert!(verdict.states > 500, "{verdict:?}");
}

#[test]
fn a_rule_that_is_switched_off_is_found() {
    for (name, rule) in [("single-change", "I1"), ("blind-put", "I4")] {
        let mutation = Mutation::named(name).expect("listed");
        let bound = Bound::named(mutation.bound.expect("found")).expect("listed");
        let verdict = check(mutation.apply(bound), None);
        let (found, steps) = verdict.broken.expect(name);
        assert!(found.starts_with(rule) && !steps.is_empty(), "{name}: {found}");
    }
}

/// What a search counts, its time apart.
fn counted(bound: Bound) -> impl PartialEq + std::fmt::Debug {
    let verdict = check(bound, None);
    (verdict.states, verdict.steps, verdict.depth, verdict.decisions, verdict.broken, verdict.unreached)
}

#[test]
fn every_search_within_a_bound_counts_the_same() {
    let tiny = || Bound::named("tiny").expect("listed");
    assert_eq!(counted(tiny()), counted(tiny()));
    // One that stops at what it finds, too: how many states it has seen by then depends on their order.
    let mutation = Mutation::named("single-change").expect("listed");
    let mutant = || mutation.apply(Bound::named("two").expect("listed"));
    assert_eq!(counted(mutant()), counted(mutant()));
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_matriarch-model"))
        .args(["--bound", "tiny"])
        .env_clear()
        .output()
        .expect("the model checker starts");
    let text = String::from_utf8(output.stdout).expect("text");
    let here = check(tiny(), None);
    let row = format!("| {} | {} | {} | {} |", here.states, here.steps, here.depth, here.decisions);
    assert!(output.status.success() && text.contains(&row), "{row} is not in:\n{text}");
}
