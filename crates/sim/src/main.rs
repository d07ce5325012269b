//! `matriarch-sim`: runs seeds, replays one, or switches rules off one at a time.

use std::time::Instant;

use clap::Parser;
use ha::Rules;
use sim::mutation::WorldRules;
use sim::{Kind, Mutation, run};

/// Seeded simulator of the protocol.
#[derive(Debug, Parser)]
#[allow(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[command(name = "matriarch-sim")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Replay one seed with a readable trace.
    #[arg(long)]
    seed: Option<u64>,
    /// Switch this rule off.
    #[arg(long)]
    mutation: Option<String>,
    /// Switch each rule off in turn and say what catches it.
    #[arg(long)]
    mutations: bool,
    /// Nothing breaks (L2, L3).
    #[arg(long)]
    calm: bool,
    /// Asynchronous mode: one master at a time and recovery are judged, not losses.
    #[arg(long)]
    asynchronous: bool,
    /// Go on after the first failing seed.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.mutations {
        return mutations(&arguments);
    }
    let kind = Kind { faults: !arguments.calm, asynchronous: arguments.asynchronous };
    let (rules, world_rules) = match &arguments.mutation {
        None => (Rules::default(), WorldRules::default()),
        Some(name) => Mutation::named(name)
            .ok_or_else(|| {
                let names: Vec<&str> = Mutation::ALL.iter().map(|mutation| mutation.name).collect();
                anyhow::anyhow!("no mutation {name:?}; there are: {}", names.join(", "))
            })?
            .rules(),
    };
    if let Some(seed) = arguments.seed {
        let outcome = run(seed, rules, world_rules, kind, true);
        println!("{outcome:#?}");
        anyhow::ensure!(outcome.violation.is_none(), "seed {seed} fails");
        return Ok(());
    }
    let began = Instant::now();
    let (mut simulated, mut events, mut acknowledged, mut elections) = (0, 0, 0, 0);
    let (mut failed, mut human) = (0_u64, 0_u64);
    for seed in arguments.from..arguments.from.saturating_add(arguments.seeds) {
        let outcome = run(seed, rules, world_rules, kind, false);
        simulated += outcome.simulated;
        events += outcome.events;
        acknowledged += outcome.acknowledged;
        elections += outcome.elections;
        human += u64::from(outcome.waits_for_human);
        if let Some(violation) = outcome.violation {
            failed += 1;
            println!("seed {seed}: {violation}");
            if !arguments.keep_going {
                break;
            }
        }
    }
    let (hours, minutes) = (sim::dice::seconds(simulated) / 3600.0, began.elapsed().as_secs_f64() / 60.0);
    println!(
        "{hours:.2} cluster-hours, {events} events, {acknowledged} commits, {elections} elections, {failed} failing seeds, {human} left with one copy that waits for a human; {:.1} cluster-hours per core-minute",
        hours / minutes
    );
    anyhow::ensure!(failed == 0, "replay with --seed");
    Ok(())
}

fn mutations(arguments: &Arguments) -> anyhow::Result<()> {
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        let (rules, world_rules) = mutation.rules();
        // A seed that fails with every rule on says nothing about this one.
        let caught = (arguments.from..arguments.from.saturating_add(arguments.seeds)).find_map(|seed| {
            let violation = run(seed, rules, world_rules, Kind::default(), false).violation?;
            let whole = run(seed, Rules::default(), WorldRules::default(), Kind::default(), false);
            whole.violation.is_none().then_some((seed, violation))
        });
        if let Some((seed, violation)) = caught {
            println!(
                "{:<24} seeds {:>5}  {}  [{}]",
                mutation.name,
                seed - arguments.from + 1,
                violation,
                mutation.what
            );
        } else {
            println!("{:<24} not caught  [{}]", mutation.name, mutation.what);
            if mutation.caught {
                missed.push(mutation.name);
            }
        }
    }
    anyhow::ensure!(missed.is_empty(), "not caught: {}", missed.join(", "));
    Ok(())
}
