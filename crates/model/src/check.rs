//! The search itself: what must hold in every state, and what must be reached so that it means something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::bound::Bound;
use crate::phase::{Observer, Transitions};
use crate::state::State;
use crate::step::{Protocol, Step};
use crate::truth::Broken;
use crate::who::Who;

/// What came of a search.
#[derive(Debug)]
pub struct Verdict {
    /// Different states.
    pub states: usize,
    /// Steps taken.
    pub steps: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// Different questions put to `decide`.
    pub decisions: usize,
    /// The search was cut short: nothing is proved.
    pub cut: bool,
    /// How long it took.
    pub took: Duration,
    /// The first broken invariant, and the steps that led there.
    pub broken: Option<(&'static str, Vec<String>)>,
    /// What was not reached although it should be possible.
    pub unreached: Vec<&'static str>,
}

macro_rules! never {
    ($($rule:ident),*) => {
        vec![$(Property::always(words(Broken::$rule), |_: &Protocol, state: &State| {
            state.broken != Some(Broken::$rule)
        })),*]
    };
}

fn words(rule: Broken) -> &'static str {
    Broken::ALL.into_iter().find(|(known, _)| *known == rule).map_or("", |(_, words)| words)
}

/// All properties: invariants, and states that a search without defects reaches.
pub fn properties() -> Vec<Property<Protocol>> {
    let mut all = never![I1, I4, I5, I6, I8, I11, S1S8, S4, Capacity];
    all.extend([
        Property::sometimes(
            "another member leads a committed epoch with an open gate",
            |_, state: &State| serves_after_failover(state),
        ),
        Property::sometimes(
            "a commit is acknowledged after a failover",
            |protocol: &Protocol, state: &State| {
                serves_after_failover(state)
                    && state.spent.writes == protocol.bound.writes
                    && state.relied.entries().filter(|entry| entry.timeline > 1).count() > 1
            },
        ),
        Property::sometimes("the former leader follows the new one", |_, state: &State| {
            let member = state.members.of(Who::A);
            member.streaming()
                && state
                    .record()
                    .is_some_and(|record| member.stream.is_some_and(|stream| stream.from == record.leader))
        }),
    ]);
    all
}

fn serves_after_failover(state: &State) -> bool {
    state.record().is_some_and(|record| {
        let leader = state.members.of(record.leader);
        record.leader != Who::A && record.committed && leader.primary().is_some_and(|primary| primary.open)
    })
}

/// Every transition between the words for a member that some step within the bound makes.
pub fn transitions(bound: Bound) -> Transitions {
    let mut model = Protocol::new(bound);
    let observer = Arc::new(Observer::default());
    model.observer = Some(observer.clone());
    let _ = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    observer.seen()
}

/// Searches everything within the bound, or until an invariant is broken.
pub fn check(bound: Bound, most: Option<usize>) -> Verdict {
    let began = Instant::now();
    let model = Protocol::new(bound);
    let mut builder = model.checker().finish_when(HasDiscoveries::AnyFailures);
    if let Some(most) = most {
        builder = builder.target_state_count(most);
    }
    let checker = builder.spawn_bfs().join();
    let invariants: Vec<&'static str> = Broken::ALL.into_iter().map(|(_, words)| words).collect();
    let discoveries = checker.discoveries();
    // Several may be found at once; the one with the shortest way to it is told, always the same.
    let broken = discoveries
        .iter()
        .filter(|(name, _)| invariants.contains(*name))
        .map(|(name, path)| (path.clone().into_actions(), *name))
        .min_by_key(|(steps, name): &(Vec<Step>, _)| (steps.len(), *name))
        .map(|(steps, name)| (name, steps.iter().map(|step| format!("{step:?}")).collect()));
    let unreached = properties()
        .into_iter()
        .map(|property| property.name)
        .filter(|name| !invariants.contains(name) && !discoveries.contains_key(name))
        .collect();
    Verdict {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        decisions: checker.model().decider.asked(),
        cut: most.is_some_and(|most| checker.state_count() >= most),
        took: began.elapsed(),
        broken,
        unreached,
    }
}
