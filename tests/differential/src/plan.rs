//! Random sequences of operations that make sense, and what is left of them without some.
//!
//! Decides what is likely: commits, waits and broken streams more than anything else. A seed always gives the same plan.

use std::collections::BTreeSet;

use sim::dice::Dice;
use sim::driver::{Doing, Outcome};
use sim::misreading::Misreading;

use crate::operation::{Model, Operation, Wanted};

/// A plan.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of which seed.
    pub seed: u64,
    /// How many servers.
    pub servers: usize,
    /// What is done.
    pub operations: Vec<Operation>,
    /// An error in the model, to see whether it would be found.
    pub misreading: Option<Misreading>,
}

impl Plan {
    /// The plan of this seed, of so many operations.
    pub fn new(seed: u64, length: usize) -> Self {
        let mut dice = Dice::new(seed);
        let servers = if dice.permille(650) { 3 } else { 2 };
        let mut plan = Self { seed, servers, operations: Vec::new(), misreading: None };
        let mut model = plan.model();
        let mut row = 0;
        let mut misses = 0;
        while plan.operations.len() < length && misses < 2_000 {
            let operation = any(&mut dice, &model, row + 1);
            if !model.allows(&operation) {
                misses += 1;
                continue;
            }
            model.apply(&operation);
            if model.is_sound() {
                row += u32::from(matches!(operation, Operation::Write { .. } | Operation::Begin { .. }));
                plan.operations.push(operation);
            } else {
                misses += 1;
                model = plan.model();
                for operation in &plan.operations {
                    model.apply(operation);
                }
            }
        }
        plan
    }

    /// The modelled servers at the beginning.
    pub fn model(&self) -> Model {
        Model::new(self.servers, self.seed, self.misreading)
    }

    /// These operations, but for those that cannot be done without the ones that are missing.
    #[must_use]
    pub fn of(&self, operations: &[Operation]) -> Self {
        let mut plan = Self { operations: Vec::new(), ..*self };
        let mut model = plan.model();
        for operation in operations {
            if !model.allows(operation) {
                continue;
            }
            model.apply(operation);
            if model.is_sound() {
                plan.operations.push(operation.clone());
            } else {
                model = plan.model();
                for operation in &plan.operations {
                    model.apply(operation);
                }
            }
        }
        plan
    }
}

fn any_names(dice: &mut Dice, on: usize, count: usize) -> Wanted {
    match dice.between(0, 9) {
        0 => Wanted::Nobody,
        1..=3 => Wanted::Alone,
        _ => {
            let others: BTreeSet<usize> = (0..count).filter(|m| *m != on && dice.permille(750)).collect();
            let acks = if others.len() > 1 && dice.permille(350) { 2 } else { 1 };
            if others.is_empty() { Wanted::Nobody } else { Wanted::Any(acks, others) }
        }
    }
}

fn any(dice: &mut Dice, model: &Model, row: u32) -> Operation {
    let servers = &model.servers;
    let count = servers.count();
    let m = dice.index(count);
    let other = (m + 1 + dice.index(count - 1)) % count;
    // Whoever can do it is asked rather than anybody.
    let mut who = |doing: Doing| {
        let able: Vec<usize> = (0..count).filter(|m| servers.doing(*m) == doing).collect();
        able.get(dice.index(able.len())).copied().unwrap_or(m)
    };
    let (primary, standby, down) = (who(Doing::Primary), who(Doing::Standby), who(Doing::Down));
    let with = |outcome: Outcome| -> Vec<u32> {
        servers.outcomes().into_iter().filter(|(_, o)| *o == outcome).map(|(row, _)| row).collect()
    };
    let (open, waiting) = (with(Outcome::Open), with(Outcome::Waits));
    let one = |dice: &mut Dice, rows: &[u32]| rows.get(dice.index(rows.len())).copied().unwrap_or(0);
    let (a, b) = (m.min(other), m.max(other));
    match dice.between(0, 99) {
        0..=25 => Operation::Write { row, on: primary, weak: dice.permille(100) },
        26..=28 => Operation::Begin { row, on: primary },
        29..=31 => Operation::Commit { row: one(dice, &open) },
        32..=36 => Operation::Cancel { row: one(dice, &waiting) },
        37 => Operation::Terminate { row: one(dice, &waiting) },
        38..=47 => Operation::Names { on: primary, names: any_names(dice, primary, count) },
        48..=51 => Operation::Stop { m, fast: true },
        52..=53 => Operation::Stop { m, fast: false },
        54..=57 => Operation::Kill { m },
        58..=60 => Operation::StartPrimary { m: down, names: any_names(dice, down, count) },
        61..=65 => Operation::StartStandby { m: down, of: dice.permille(850).then_some(primary) },
        66..=69 => Operation::Follow { m: standby, of: primary },
        70..=71 => Operation::Detach { m: standby },
        72..=76 => Operation::Cut { a, b },
        77..=80 => Operation::Mend { a, b },
        81..=85 => {
            let above = if dice.permille(400) { 0 } else { u32::try_from(dice.between(0, 3)).unwrap_or(0) };
            Operation::Promote { m: standby, above, names: any_names(dice, standby, count) }
        }
        86..=90 => Operation::Rewind { m: down, from: primary },
        91 => Operation::Clone { m: down, from: primary },
        92..=93 => Operation::Pause { m: standby },
        94..=95 => Operation::Resume { m },
        96..=97 => Operation::Freeze { m: standby },
        _ => Operation::Thaw { m },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan_and_a_plan_is_its_own_sieve() {
        for seed in 0..20 {
            let plan = Plan::new(seed, 20);
            assert_eq!(plan.operations, Plan::new(seed, 20).operations);
            assert_eq!(plan.operations, plan.of(&plan.operations).operations);
            assert!(plan.operations.len() > 10, "{:?}", plan.operations);
        }
    }
}
