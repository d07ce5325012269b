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
