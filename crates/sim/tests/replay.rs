//! The decision log of an agent replays, and a changed one does not.

use sim::replay::{replay, sample};

#[test]
fn a_log_of_a_failover_replays() {
    let log = sample(1);
    let said = replay(&log).expect("the same decisions");
    assert!(said.contains("of 1 lives"), "{said}");
    assert!(log.contains("\"do\":\"seal\""), "a failover is in it");
}

#[test]
fn a_log_that_lacks_a_win_does_not_replay() {
    let seed = (1..50).find(|seed| sample(*seed).contains("\"line\":\"won\"")).expect("somebody wins");
    let log = sample(seed);
    let rest: Vec<&str> = log.lines().filter(|line| !line.contains("\"line\":\"won\"")).collect();
    let error = replay(&rest.join("\n")).expect_err("it decided on a token").to_string();
    assert!(error.contains("differs"), "{error}");
}

#[test]
fn a_log_that_begins_in_the_middle_is_refused() {
    let log = sample(1);
    let rest = log.split_once('\n').expect("lines").1;
    assert!(replay(rest).is_err());
}
