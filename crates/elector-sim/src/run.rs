//! One seed from the beginning to the verdict.

use sim::dice::SECOND;

use crate::mutation::Mutation;
use crate::third_party::Which;
use crate::world::{FAULTS, Kind, RECOVERY, World};

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// The first violated invariant.
    pub violation: Option<String>,
    /// Events handled.
    pub events: u64,
    /// Terms.
    pub terms: u64,
    /// What happened, when asked for.
    pub trace: Vec<String>,
}

/// How long at the end nothing may change.
const REST: u64 = 30 * SECOND;
/// Renewals in [`REST`] of the shortest TTL, 5 s, on a fast clock, and a roll call.
const RENEWALS: u64 = 30;

/// Runs one seed.
pub fn run(
    seed: u64,
    kind: Kind,
    mutation: Option<Mutation>,
    third_party: Option<Which>,
    trace: bool,
) -> Outcome {
    let mut world = World::new(seed, kind, mutation, third_party, trace);
    let mut rest = None;
    while world.violation.is_none() && world.now < FAULTS + RECOVERY && world.step() {
        if rest.is_none() && world.now > FAULTS + RECOVERY - REST {
            rest = Some((world.terms, world.register.landed));
        }
    }
    if world.violation.is_none() && third_party.is_none() {
        let (terms, (writes, reads)) = rest.unwrap_or_default();
        if world.leaders().is_empty() {
            world.violated("E3: nobody leads");
        } else if world.terms != terms {
            world.violated("E3: leaders change although nothing breaks any more");
        }
        let (written, read) = (world.register.landed.0 - writes, world.register.landed.1 - reads);
        if written > RENEWALS || read > RENEWALS / 3 {
            world.violated(&format!("E5: {written} writes and {read} reads in 30 s of rest"));
        }
    }
    Outcome {
        violation: world.violation.take(),
        events: world.events,
        terms: world.terms,
        trace: world.trace.take().unwrap_or_default(),
    }
}

/// Nanoseconds from the loss of a leader to the next one: after a step-down, or after its death.
pub fn fail_over(seed: u64, crash: bool) -> Option<u64> {
    let mut world = World::new(seed, Kind::Calm, None, None, false);
    let at = FAULTS / 2 + seed % 40 * SECOND / 10;
    while world.now < at && world.step() {}
    let leader = *world.leaders().first()?;
    if crash {
        world.kill(leader);
    } else {
        while !world.hand_over(leader) && world.step() {}
    }
    let lost = world.now;
    while world.step() && world.now < FAULTS + RECOVERY {
        if world.leaders().first().is_some_and(|next| *next != leader) {
            return Some(world.now - lost);
        }
    }
    None
}
