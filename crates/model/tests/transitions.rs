//! The diagram in `docs/protocol.md` shows what a member may become, all of it and nothing else.
//!
//! The search within a small bound and some seeds of the simulator, which has more members, more epochs and more
//! faults, note each change of the word for a member; together they must have seen exactly what is drawn.

use std::collections::{BTreeMap, BTreeSet};

use model::phase::{Facts, Phase, Runs};
use model::{Bound, Transitions, transitions};
use sim::Kind;
use sim::mutation::WorldRules;
use sim::run::prepared;
use sim::world::World;

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// The edges of the first state diagram. An edge from or to a composite state is one of each state in it.
fn drawn() -> BTreeSet<(String, String)> {
    let diagram = DOCUMENT
        .split("```mermaid\nstateDiagram-v2\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("a state diagram in docs/protocol.md");
    let (mut edges, mut composite) = (Vec::new(), None);
    let mut inside: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in diagram.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("state ").and_then(|line| line.strip_suffix(" {")) {
            composite = Some(name.to_owned());
        } else if line == "}" {
            composite = None;
        } else if let Some((from, to)) = line.split_once("-->") {
            let to = to.split(':').next().unwrap_or_default();
            let (from, to) = (from.trim().to_owned(), to.trim().to_owned());
            if let Some(name) = &composite {
                inside.entry(name.clone()).or_default().extend([from.clone(), to.clone()]);
            }
            edges.push((from, to));
        }
    }
    let each = |name: &String| inside.get(name).cloned().unwrap_or_else(|| BTreeSet::from([name.clone()]));
    edges
        .iter()
        .filter(|(from, to)| from != "[*]" && to != "[*]")
        .flat_map(|(from, to)| {
            let to = each(to);
            each(from)
                .into_iter()
                .flat_map(move |from| to.clone().into_iter().map(move |to| (from.clone(), to)))
        })
        .collect()
}

fn phase(world: &World, m: usize) -> Option<Phase> {
    let member = world.members.get(m)?;
    let pod = member.pod.as_ref();
    let known = pod.and_then(|pod| pod.agent.as_ref()?.known.as_ref()).map(|known| &known.record);
    // As `decide` does: an older record than one that was seen before says nothing.
    let record =
        [member.promise.last_record.as_ref(), known].into_iter().flatten().max_by_key(|one| one.epoch);
    let runs = match (member.primary(), member.standby()) {
        (Some(primary), _) => Runs::Masters { open: primary.gate == ha::Gate::Open },
        (_, Some(standby)) if standby.promoting.is_some() => Runs::Promotes,
        (_, Some(standby)) => Runs::Recovers { upstream: standby.upstream.is_some() },
        (None, None) => Runs::No,
    };
    let leader = record.and_then(|record| record.leader.as_ref());
    Some(Phase::of(&Facts {
        runs,
        sealed_below: member.promise.sealed_below.0,
        epoch: record.map_or(0, |record| record.epoch.0),
        recorded: leader.is_some_and(|leader| leader.member() == member.id()),
        this_life: leader.is_some_and(|leader| Some(leader.boot) == pod.map(|pod| pod.boot)),
    }))
}

/// What one world of the simulator shows until its faults have ended.
fn simulated(seed: u64, focus: &'static [&'static str], noted: &mut Transitions) {
    let kind = Kind { focus, ..Kind::default() };
    let mut world = prepared(seed, ha::Rules::default(), WorldRules::default(), kind, false);
    let mut before: BTreeMap<usize, Phase> = BTreeMap::new();
    while world.now < 60_000_000_000 && world.step() {
        for m in 0..world.members.len() {
            let Some(now) = phase(&world, m) else { continue };
            match before.insert(m, now) {
                Some(was) if was != now => drop(noted.insert((was, now))),
                _ => {}
            }
        }
    }
}

fn names(seen: &Transitions) -> BTreeSet<(String, String)> {
    seen.iter().map(|(from, to)| (format!("{from:?}"), format!("{to:?}"))).collect()
}

#[test]
fn the_diagram_shows_what_the_code_does() {
    let drawn = drawn();
    let mut seen = transitions(Bound::named("two").expect("listed"));
    for seed in 1..=40 {
        simulated(seed, &[], &mut seen);
    }
    // A leader behind its gate is seldom deposed: in worlds where promotions are cut short, and not in each of them.
    for seed in 1..=300 {
        if drawn.is_subset(&names(&seen)) {
            break;
        }
        simulated(seed, &["promotion", "partition"], &mut seen);
    }
    let seen = names(&seen);
    let undrawn: Vec<_> = seen.difference(&drawn).collect();
    let unseen: Vec<_> = drawn.difference(&seen).collect();
    assert!(undrawn.is_empty() && unseen.is_empty(), "not drawn: {undrawn:?}, never seen: {unseen:?}");
}
