//! How long nothing is acknowledged when one leader fails in a quiet world: no seed may show a stall that the protocol
//! itself makes, such as a retry with a long pause or two members that wait for each other.
//!
//! `GAPS=2000 cargo test --release -p matriarch-sim --test gaps -- --nocapture` prints the distribution of more seeds.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and tells people")]

use ha::Rules;
use sim::dice::{MS, SECOND};
use sim::event::Event;
use sim::mutation::WorldRules;
use sim::world::World;

/// How the leader fails.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Its postmaster and all backends die; the agent lives.
    Postgres,
    /// Its pod dies and comes back after a second.
    Pod,
    /// Its node has no power.
    Power,
    /// Its node has no network.
    Cut,
}

impl Fault {
    fn make(self, world: &mut World, m: usize) {
        match self {
            Self::Postgres => world.kill_postgres(m),
            Self::Pod => {
                world.kill_pod(m, false);
                world.later(SECOND, Event::PodStart { m });
            }
            Self::Power => world.kill_pod(m, true),
            Self::Cut => world.net.isolate(m, false),
        }
    }
}

fn settled(world: &World) -> bool {
    let record = &world.api.record;
    record.electorates.len() == 1
        && record.fence_xid.is_some()
        && record.current_electorate().is_some_and(|newest| newest.members.len() == 2)
}

fn until(world: &mut World, seed: u64, what: &str, done: impl Fn(&World) -> bool) {
    let bound = world.now + 120 * SECOND;
    while !done(world) {
        assert!(
            world.now < bound && world.step(),
            "seed {seed}: {what} did not come about by {}; {:?}",
            world.now / MS,
            world.api.record
        );
        assert_eq!(world.violation, None);
    }
}

/// The longest time without an acknowledgement, nanoseconds, when the leader fails after so many restarts of its pod.
fn gap(seed: u64, fault: Fault, restarts: u64) -> u64 {
    let mut world = World::quiet(3, seed, Rules::default(), WorldRules::default());
    let mut longest = 0;
    for round in 0..=restarts {
        until(&mut world, seed, "a settled record", settled);
        let from = world.now + (seed.wrapping_mul(7919).wrapping_add(round * 131) % 3000) * MS;
        until(&mut world, seed, "time", |world| world.now >= from);
        until(&mut world, seed, "a settled record", settled);
        let (leader, broken) = (world.leader().unwrap(), world.now);
        let fault = if round < restarts { Fault::Pod } else { fault };
        fault.make(&mut world, leader);
        longest = 0;
        let mut last = world.truth.acknowledged_at;
        // What was under way may still be acknowledged, and then comes the gap.
        while world.now < broken + 5 * SECOND || world.truth.acknowledged_at < broken + SECOND {
            assert!(
                world.now < broken + 120 * SECOND && world.step(),
                "seed {seed}: nothing more is acknowledged"
            );
            assert_eq!(world.violation, None, "seed {seed}");
            let now = world.truth.acknowledged_at.max(last);
            longest = longest.max(now - last);
            last = now;
        }
    }
    longest
}

#[test]
fn no_seed_stalls_after_one_fault_of_the_leader() {
    let seeds = std::env::var("GAPS").map_or(20, |seeds| seeds.parse().unwrap());
    for (fault, bound) in [
        (Fault::Postgres, 6 * SECOND),
        (Fault::Pod, 6 * SECOND),
        (Fault::Power, 8 * SECOND),
        (Fault::Cut, 8 * SECOND),
    ] {
        for restarts in [0, 3] {
            let mut gaps: Vec<(u64, u64)> =
                (1..=seeds).map(|seed| (gap(seed, fault, restarts) / MS, seed)).collect();
            gaps.sort_unstable();
            let at = |percent: usize| gaps[(gaps.len() - 1) * percent / 100].0;
            let (longest, seed) = gaps[gaps.len() - 1];
            println!(
                "{fault:?} after {restarts} restarts: p50 {} p90 {} p99 {} max {longest} ms (seed {seed})",
                at(50),
                at(90),
                at(99)
            );
            assert!(longest * MS <= bound, "{fault:?} after {restarts} restarts, seed {seed}: {longest} ms");
        }
    }
}
