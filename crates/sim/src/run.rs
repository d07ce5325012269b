//! One seed from the beginning to the verdict.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use ha::{DurabilityMode, Gate, Rules};

use crate::dice::SECOND;
use crate::event::Event;
use crate::faults;
use crate::mutation::WorldRules;
use crate::world::World;

/// How long faults go on.
const FAULTS: u64 = 60 * SECOND;
/// How long the cluster has to become whole after they ended (L1).
const RECOVERY: u64 = 60 * SECOND;

/// How often a fault in focus comes; all others together come about 500 times.
const FOCUSED: u64 = 200;

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// The first violated invariant.
    pub violation: Option<String>,
    /// Simulated nanoseconds.
    pub simulated: u64,
    /// Events handled.
    pub events: u64,
    /// Acknowledged commits.
    pub acknowledged: u64,
    /// Won elections.
    pub elections: u64,
    /// Epochs in all.
    pub epochs: u64,
    /// Every copy but the leader's is half-rewound, or the newest copy went with a leader whose last life nobody can
    /// prove to have ended: it waits for a human, as §2 and §4 step 10 say, and L1 is not judged.
    pub waits_for_human: bool,
    /// Terms that a human forced.
    pub forced: u64,
    /// Records that somebody relied on and a human gave up.
    pub given_up: u64,
    /// Writes of the record in the last half minute.
    pub late_writes: u64,
    /// Nanoseconds in gaps of more than a second without an acknowledgement.
    pub gaps: u64,
    /// The faults, when they were asked for.
    pub faults: Vec<String>,
    /// How many faults there were.
    pub fault_count: u64,
}

/// What kind of world a seed makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Things break.
    pub faults: bool,
    /// Asynchronous mode: losses within its promise are no violation.
    pub asynchronous: bool,
    /// Faults that come much more often than usual; in every second world no others do, and those less often.
    pub focus: &'static [&'static str],
}

impl Default for Kind {
    fn default() -> Self {
        Self { faults: true, asynchronous: false, focus: &[] }
    }
}

/// Runs one seed.
pub fn run(seed: u64, rules: Rules, world_rules: WorldRules, kind: Kind, trace: bool) -> Outcome {
    run_without(seed, rules, world_rules, kind, &BTreeSet::new(), trace)
}

/// Runs one seed without some of its faults, and notes the others.
pub fn run_without(
    seed: u64,
    rules: Rules,
    world_rules: WorldRules,
    kind: Kind,
    skip: &BTreeSet<u64>,
    trace: bool,
) -> Outcome {
    let mut world = prepared(seed, rules, world_rules, kind, trace);
    world.skip.clone_from(skip);
    if trace || !skip.is_empty() {
        world.notes = Some(RefCell::default());
    }
    live(&mut world)
}

/// All that happens in the world of this seed, as one number: what was decided, done and recorded, and every event with
/// its time. The same on every run of one build, in whatever process, thread and environment.
pub fn digest(seed: u64, kind: Kind) -> u64 {
    let mut world = prepared(seed, Rules::default(), WorldRules::default(), kind, false);
    world.digest = Some(RefCell::default());
    let outcome = live(&mut world);
    let mut digest = world.digest.take().map(RefCell::into_inner).unwrap_or_default();
    (outcome.events, outcome.acknowledged, outcome.epochs, outcome.violation).hash(&mut digest);
    digest.finish()
}

/// The world of this seed before anything happens in it.
pub fn prepared(seed: u64, rules: Rules, world_rules: WorldRules, kind: Kind, trace: bool) -> World {
    let mut world = World::new(seed, rules, world_rules, trace);
    world.calm = !kind.faults;
    // In every second world nothing else breaks, and seldom: what takes its time is not disturbed.
    world.sparse = !kind.focus.is_empty() && seed.is_multiple_of(2);
    for (weight, (name, ..)) in world.weights.iter_mut().zip(faults::FAULTS) {
        if kind.focus.contains(&name) {
            *weight = FOCUSED;
        } else if world.sparse {
            *weight = 0;
        }
    }
    if kind.asynchronous {
        world.settings.mode = DurabilityMode::Async;
        for member in &mut world.members {
            member.settings.mode = DurabilityMode::Async;
        }
    }
    world.queue.push(FAULTS, Event::Calm);
    world
}

fn live(world: &mut World) -> Outcome {
    let mut version = None;
    while world.violation.is_none() && world.now < FAULTS + RECOVERY && world.step() {
        if version.is_none() && world.now > FAULTS + RECOVERY / 2 {
            version = Some(world.api.version);
        }
    }
    let waits_for_human = last_copy(world) || world.lost_leader;
    if world.violation.is_none() && !waits_for_human {
        whole(world);
    }
    Outcome {
        violation: world.violation.take(),
        simulated: world.now,
        events: world.events,
        acknowledged: world.truth.acknowledged,
        elections: world.truth.elections,
        epochs: world.truth.epochs,
        waits_for_human,
        forced: world.truth.forced_terms,
        given_up: world.truth.given_up,
        gaps: world.truth.gaps,
        faults: world.notes.take().map(RefCell::into_inner).unwrap_or_default(),
        fault_count: world.fault_count,
        late_writes: version.map_or(0, |version| world.api.version - version),
    }
}

/// Whether the recorded leader's is the only copy that is not half-rewound.
fn last_copy(world: &World) -> bool {
    let leader = world.leader();
    let mut others =
        world.members.iter().enumerate().filter(|(m, member)| Some(*m) != leader && !member.ghost).peekable();
    leader.is_some() && others.peek().is_some() && others.all(|(_, member)| member.promise.rewinding)
}

/// L1: after the faults there is one open master that acknowledges, everybody follows it, the record is settled.
fn whole(world: &mut World) {
    let Some(leader) = world.leader() else {
        world.violated("L1: nobody is recorded as leader".to_owned());
        return;
    };
    let open = world
        .members
        .get(leader)
        .and_then(|member| member.primary())
        .is_some_and(|primary| primary.gate == Gate::Open);
    if !open {
        world.violated(format!("L1: the recorded leader pg-{leader} does not serve"));
        return;
    }
    if world.now.saturating_sub(world.truth.acknowledged_at) > 5 * SECOND {
        world.violated("L1: nothing is acknowledged any more".to_owned());
        return;
    }
    let boot = world.members.get(leader).and_then(|member| member.pod.as_ref()).map(|pod| pod.boot);
    if world.api.route.map(|(_, boot)| boot) != boot {
        world.violated(format!("L1: the write route does not point at pg-{leader}"));
        return;
    }
    for m in 0..world.real() {
        let Some(member) = world.members.get(m) else { continue };
        let streams = member.standby().is_some_and(|standby| standby.conn.is_some());
        // A rewind that failed without another copy waits for a human (§4 step 10).
        let given_up = member.promise.rewinding;
        if m != leader && !streams && !given_up {
            let state = member.pod.as_ref().map(|pod| format!("{:?}", pod.state));
            world.violated(format!("L1: pg-{m} does not follow pg-{leader}: {state:?}"));
            return;
        }
    }
    if world.settings.mode == DurabilityMode::Async {
        return;
    }
    let settled = world.api.record.electorates.len() == 1 && world.api.record.fence_xid.is_some();
    let given_up = world.members.iter().filter(|member| !member.ghost && member.promise.rewinding).count();
    let counted = world.api.record.current_electorate().map_or(0, |newest| newest.members.len());
    if !settled || counted + 1 + given_up < world.real() {
        world.violated(format!("L1: the electorate is not settled: {:?}", world.api.record.electorates));
    }
}
