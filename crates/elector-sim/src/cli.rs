//! `matriarch-elector-sim`: runs seeds, shows one, switches rules off, or lets other algorithms run in the same worlds.

use anyhow::{Context, ensure};
use clap::Parser;
use elector_sim::run::fail_over;
use elector_sim::third_party::Which;
use elector_sim::{Kind, Mutation, Outcome, run};
use sim::crew;

/// Seeds that a mutation, or another algorithm, has before it counts as not caught.
const SEARCH: u64 = 1500;

/// Seeded simulator of the generic leader election.
#[derive(Debug, Parser)]
#[allow(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[command(name = "matriarch-elector-sim")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// Shows one seed.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: this rule switched off.
    #[arg(long)]
    mutation: Option<String>,
    /// With --seed: only answers get lost (E4).
    #[arg(long)]
    gentle: bool,
    /// Switches each rule off in turn and says what catches it.
    #[arg(long)]
    mutations: bool,
    /// Lets other algorithms run, and says which of them let two lead.
    #[arg(long)]
    third_party: bool,
    /// How long it takes to the next leader, over this many seeds.
    #[arg(long)]
    fail_over: bool,
}

/// Does what the command line asks for.
pub(crate) fn run_task() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return show(seed, &arguments);
    }
    if arguments.mutations {
        return mutations();
    }
    if arguments.third_party {
        return third_party();
    }
    if arguments.fail_over {
        return times(arguments.seeds);
    }
    let mut failed = 0;
    for (kind, count) in [
        (Kind::Chaos, arguments.seeds),
        (Kind::Gentle, arguments.seeds / 5),
        (Kind::Calm, arguments.seeds / 20),
    ] {
        let (outcomes, _) =
            crew::all(crew::cores(), count, |seed| run(seed, kind, None, None, false), |_| false);
        let sum =
            |value: fn(&Outcome) -> u64| outcomes.iter().map(|(_, outcome)| value(outcome)).sum::<u64>();
        for (seed, outcome) in &outcomes {
            if let Some(violation) = &outcome.violation {
                failed += 1;
                println!("{kind:?} seed {seed}: {violation}");
            }
        }
        let (events, terms) = (sum(|outcome| outcome.events), sum(|outcome| outcome.terms));
        println!("{kind:?}: {} seeds, {events} events, {terms} terms", outcomes.len());
    }
    println!("{failed} failing seeds");
    ensure!(failed == 0, "show one with --seed N, or --seed N --gentle");
    Ok(())
}

fn show(seed: u64, arguments: &Arguments) -> anyhow::Result<()> {
    let mutation = match &arguments.mutation {
        Some(name) => Some(Mutation::named(name).with_context(|| {
            let names: Vec<&str> = Mutation::all().iter().map(|mutation| mutation.name).collect();
            format!("no mutation {name:?}; there are: {}", names.join(", "))
        })?),
        None => None,
    };
    let kind =
        mutation.map_or(if arguments.gentle { Kind::Gentle } else { Kind::Chaos }, |mutation| mutation.kind);
    let outcome = run(seed, kind, mutation, None, true);
    for line in &outcome.trace {
        println!("{line}");
    }
    match outcome.violation {
        Some(violation) => anyhow::bail!("seed {seed}: {violation}"),
        None => Ok(()),
    }
}

/// The first of all seeds that violates anything.
fn search(count: u64, world: impl Fn(u64) -> Outcome + Sync) -> Option<(u64, String)> {
    let (outcomes, _) = crew::all(crew::cores(), count, |seed| world(seed).violation, Option::is_some);
    outcomes.into_iter().find_map(|(seed, violation)| Some((seed, violation?)))
}

fn mutations() -> anyhow::Result<()> {
    let all = Mutation::all();
    let mut missed = Vec::new();
    for mutation in &all {
        let found = search(SEARCH, |seed| run(seed, mutation.kind, Some(*mutation), None, false));
        if let Some((seed, violation)) = found {
            println!("{:<26} seed {seed:>4}: {violation}", mutation.name);
        } else {
            println!("{:<26} not caught in {SEARCH} seeds", mutation.name);
            missed.push(mutation.name);
        }
    }
    ensure!(missed.is_empty(), "not caught: {}", missed.join(", "));
    println!("{} rules, all caught", all.len());
    Ok(())
}

fn third_party() -> anyhow::Result<()> {
    for kind in [Kind::OneClock, Kind::Chaos] {
        let worlds = if kind == Kind::OneClock {
            "all clocks are one"
        } else {
            "clocks within bounds, wall clocks step"
        };
        println!("{worlds}:");
        let ours = search(SEARCH, |seed| run(seed, kind, None, None, false));
        println!("  {:<22} {}", "this one", shown(ours.as_ref()));
        ensure!(ours.is_none(), "two lead");
        for which in Which::ALL {
            let found = search(SEARCH, |seed| run(seed, kind, None, Some(which), false));
            println!("  {:<22} {}", which.name(), shown(found.as_ref()));
            let expected = kind == Kind::Chaos || which != Which::Kubert;
            ensure!(found.is_some() == expected, "{}: otherwise than it was", which.name());
        }
    }
    Ok(())
}

fn shown(found: Option<&(u64, String)>) -> String {
    match found {
        Some((seed, violation)) => format!("two leaders: seed {seed}, {violation}"),
        None => format!("never two leaders in {SEARCH} seeds"),
    }
}

fn times(count: u64) -> anyhow::Result<()> {
    for crash in [false, true] {
        let mut all: Vec<u64> = (0..count).filter_map(|seed| fail_over(seed, crash)).collect();
        all.sort_unstable();
        let at = |percent: usize| {
            all.get((all.len() * percent / 100).min(all.len().saturating_sub(1))).copied().unwrap_or(0)
        };
        let what = if crash { "a crash, TTL 10 s" } else { "a step-down" };
        println!(
            "after {what}: p50 {:.3} s, p99 {:.3} s, {} times",
            sim::dice::seconds(at(50)),
            sim::dice::seconds(at(99)),
            all.len()
        );
        ensure!(all.len() as u64 == count, "not every leader was followed by another");
    }
    Ok(())
}
