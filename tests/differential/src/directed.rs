//! A few sequences by hand: each fact that the model rests on, where a wrong model would show.
//!
//! Random sequences go far and may miss what is near. These run on every major, each time; the tests here show that
//! every error that somebody could make in the model ([`Misreading`]) changes what one of them expects, so that a wrong
//! model differs from real servers. Must never leave an operation out, whatever the model says of it.
//!
//! [`Misreading`]: sim::misreading::Misreading

use std::collections::BTreeSet;

use crate::compare::differences;
use crate::look::Look;
use crate::operation::{Model, Operation, Wanted};
use crate::plan::Plan;

fn any(acks: u32, members: &[usize]) -> Wanted {
    Wanted::Any(acks, members.iter().copied().collect::<BTreeSet<usize>>())
}

fn write(row: u32, on: usize) -> Operation {
    Operation::Write { row, on, weak: false }
}

fn standby(m: usize, of: usize) -> Operation {
    Operation::StartStandby { m, of: Some(of) }
}

fn promote(m: usize, above: u32, names: Wanted) -> Operation {
    Operation::Promote { m, above, names }
}

/// All of them, with what they are about.
pub fn sequences() -> Vec<(&'static str, Plan)> {
    let plan = |servers, operations| Plan { seed: 0, servers, operations, misreading: None };
    vec![
        ("who is waited for", plan(3, who_is_waited_for())),
        ("P5, a checkpointer that stands still", plan(2, names_in_force())),
        ("P1, P6, a commit that waits", plan(3, a_commit_that_waits())),
        ("P23, a fast stop", plan(2, a_fast_stop())),
        ("P11, planted history goes with a rewind", plan(2, planted())),
        ("P24, a start on the control file's timeline", plan(3, old_timeline())),
        ("P12, ahead of the fork", plan(3, ahead_of_the_fork())),
    ]
}

fn who_is_waited_for() -> Vec<Operation> {
    use Operation::{Cancel, Cut, Freeze, Mend, Names, Pause, Resume, Terminate, Thaw, Write};
    vec![
        Names { on: 0, names: any(1, &[1]) },
        Freeze { m: 1 },
        write(1, 0),
        Thaw { m: 1 },
        Names { on: 0, names: any(2, &[1, 2]) },
        Cut { a: 0, b: 2 },
        write(2, 0),
        Write { row: 3, on: 0, weak: true },
        Cancel { row: 2 },
        write(4, 0),
        Terminate { row: 4 },
        Names { on: 0, names: any(1, &[1]) },
        Pause { m: 1 },
        write(5, 0),
        Resume { m: 1 },
        Mend { a: 0, b: 2 },
    ]
}

fn names_in_force() -> Vec<Operation> {
    use Operation::{Hold, Names, Release};
    vec![
        Hold { m: 0 },
        Names { on: 0, names: Wanted::Nobody },
        write(1, 0),
        Release { m: 0 },
        write(2, 0),
        Names { on: 0, names: Wanted::Alone },
    ]
}

fn a_commit_that_waits() -> Vec<Operation> {
    use Operation::{Cut, Follow, Kill, Names, StartPrimary, Stop};
    vec![
        Names { on: 0, names: any(1, &[2]) },
        Cut { a: 0, b: 2 },
        write(1, 0),
        promote(1, 2, Wanted::Nobody),
        Kill { m: 0 },
        StartPrimary { m: 0, names: Wanted::Alone },
        Follow { m: 2, of: 1 },
        write(2, 1),
        Stop { m: 2, fast: true },
    ]
}

fn a_fast_stop() -> Vec<Operation> {
    use Operation::{Rewind, StartStandby, Stop};
    vec![
        write(1, 0),
        Stop { m: 0, fast: true },
        promote(1, 0, Wanted::Alone),
        standby(0, 1),
        write(2, 1),
        Stop { m: 0, fast: true },
        write(3, 1),
        // Nothing is copied: both control files show the same timeline (P22).
        Rewind { m: 0, from: 1 },
        StartStandby { m: 0, of: None },
    ]
}

fn planted() -> Vec<Operation> {
    use Operation::{Cut, Mend, Rewind, Stop};
    vec![
        Cut { a: 0, b: 1 },
        promote(1, 2, Wanted::Alone),
        write(1, 1),
        Stop { m: 1, fast: true },
        Rewind { m: 1, from: 0 },
        Mend { a: 0, b: 1 },
        standby(1, 0),
        write(2, 0),
        promote(1, 0, Wanted::Alone),
    ]
}

fn old_timeline() -> Vec<Operation> {
    use Operation::{Follow, Kill, StartPrimary};
    vec![
        Kill { m: 0 },
        promote(1, 0, Wanted::Alone),
        Follow { m: 2, of: 1 },
        write(1, 1),
        Kill { m: 2 },
        StartPrimary { m: 2, names: Wanted::Alone },
    ]
}

fn ahead_of_the_fork() -> Vec<Operation> {
    use Operation::{Cut, Follow};
    vec![
        Cut { a: 0, b: 1 },
        write(1, 0),
        promote(1, 0, Wanted::Alone),
        write(2, 1),
        Follow { m: 2, of: 1 },
        write(3, 1),
    ]
}

/// What the wrong model of this plan expects otherwise than the right one does, after the first operation that shows it.
pub fn shows(plan: &Plan) -> Option<String> {
    let (mut right, mut wrong) = (Plan { misreading: None, ..plan.clone() }.model(), plan.model());
    plan.operations.iter().find_map(|operation| {
        right.apply(operation);
        wrong.apply(operation);
        let text = differences(&wrong, &look(&right));
        (!text.is_empty()).then(|| format!("after \"{operation}\"\n{text}"))
    })
}

/// What real servers would show if this model were right.
fn look(model: &Model) -> Look {
    let servers = &model.servers;
    let seen = |m: usize| (!servers.is_frozen(m)).then(|| servers.seen(m));
    Look {
        servers: (0..servers.count()).map(seen).collect(),
        in_flight: BTreeSet::new(),
        outcomes: servers.outcomes().into_iter().map(|(row, outcome)| (row, Some(outcome))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim::misreading::Misreading;

    #[test]
    fn every_error_in_the_model_changes_what_a_sequence_expects() {
        let unseen: Vec<Misreading> = Misreading::ALL
            .into_iter()
            .filter(|misreading| {
                let found = sequences().into_iter().find_map(|(name, plan)| {
                    let text = shows(&Plan { misreading: Some(*misreading), ..plan })?;
                    println!("{misreading:?}: {name}, {text}");
                    Some(())
                });
                found.is_none()
            })
            .collect();
        assert!(unseen.is_empty(), "unseen: {unseen:?}");
    }

    #[test]
    fn the_right_model_expects_what_it_expects() {
        for (name, plan) in sequences() {
            assert_eq!(shows(&plan), None, "{name}");
        }
    }
}
