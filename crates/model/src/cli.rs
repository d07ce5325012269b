//! `matriarch-model`: searches every state within a bound, and shows that the search can fail.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use model::{Bound, Mutation, Transitions, Verdict, check, transitions};

/// Checks the protocol exhaustively within small bounds. Without arguments: those that a test run affords.
#[derive(Parser)]
struct Arguments {
    /// Only this bound, whether or not a test run affords it.
    #[arg(long)]
    bound: Option<String>,
    /// Prints the bounds, and what is checked in every state.
    #[arg(long)]
    list: bool,
    /// Switches off one rule after the other; each that is stated to be found must be.
    #[arg(long)]
    mutations: bool,
    /// Switches this rule off.
    #[arg(long, value_name = "RULE")]
    mutate: Option<String>,
    /// Prints what members become within the bound, in the form of the diagram in `docs/protocol.md`.
    #[arg(long)]
    transitions: bool,
    /// Gives up after about so many steps: then nothing is proved.
    #[arg(long, value_name = "STEPS")]
    most: Option<usize>,
}

/// Does what the command line asks for.
pub(crate) fn run_task() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.mutations {
        return mutations();
    }
    let mut bounds: Vec<Bound> = match &arguments.bound {
        Some(name) => vec![Bound::named(name).with_context(|| format!("no bound is called {name}"))?],
        None => Bound::all().into_iter().filter(|bound| bound.affordable).collect(),
    };
    if arguments.transitions {
        for (from, to) in bounds.into_iter().flat_map(transitions).collect::<Transitions>() {
            println!("{from:?} --> {to:?}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(name) = &arguments.mutate {
        let mutation = Mutation::named(name).with_context(|| format!("no rule is called {name}"))?;
        bounds = bounds.into_iter().map(|bound| mutation.apply(bound)).collect();
    }
    println!(
        "| bound | members | epochs | w | when short | crashes | commits | changes | unique states | steps | depth | calls of decide | seconds |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let (mut well, mut states) = (true, 0);
    for bound in bounds {
        let verdict = check(bound.clone(), arguments.most);
        states += verdict.states;
        println!("{}", row(&bound, &verdict));
        well &= told(&verdict) && !verdict.cut;
    }
    println!();
    println!(
        "{states} unique states, {}",
        if well { "every invariant holds in each of them" } else { "NOT PROVED" }
    );
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(bound: &Bound, verdict: &Verdict) -> String {
    format!(
        "| {} | {} | {} | {} | {:?} | {} | {} | {} | {} | {} | {} | {} | {:.1} |",
        bound.name,
        bound.members,
        bound.epochs,
        bound.acks,
        bound.when_short,
        bound.crashes,
        bound.writes,
        bound.changes,
        verdict.states,
        verdict.steps,
        verdict.depth,
        verdict.decisions,
        verdict.took.as_secs_f64()
    )
}

/// Prints what is wrong, if anything.
fn told(verdict: &Verdict) -> bool {
    if let Some((rule, steps)) = &verdict.broken {
        println!("\nBROKEN: {rule}, after {} steps:", steps.len());
        for (n, step) in steps.iter().enumerate() {
            println!("{:>3} {step}", n + 1);
        }
        return false;
    }
    for goal in &verdict.unreached {
        println!("\nNEVER REACHED: {goal}");
    }
    if verdict.cut {
        println!("\nCUT SHORT: not every state was seen");
    }
    verdict.unreached.is_empty()
}

fn list() {
    for bound in Bound::all() {
        println!(
            "{:14} {} members, {} epochs, w = {}, {:?}, {} crashes, {} commits, {} changes{}",
            bound.name,
            bound.members,
            bound.epochs,
            bound.acks,
            bound.when_short,
            bound.crashes,
            bound.writes,
            bound.changes,
            if bound.affordable { "" } else { " (only when asked for)" }
        );
    }
    println!();
    for property in model::check::properties() {
        println!("{:?}: {}", property.expectation, property.name);
    }
}

fn mutations() -> Result<ExitCode> {
    println!("| rule switched off | what | caught by | bound | unique states until then | steps to it |");
    println!("|---|---|---|---|---|---|");
    let (mut caught, mut wrong) = (0, Vec::new());
    for mutation in Mutation::ALL {
        let bounds = mutation.bound.map_or_else(|| vec!["two", "three"], |name| vec![name]);
        for name in &bounds {
            let bound = Bound::named(name).with_context(|| format!("no bound is called {name}"))?;
            let verdict = check(mutation.apply(bound), None);
            let by = verdict
                .broken
                .as_ref()
                .map(|(rule, steps)| (rule.split_once(' ').map_or(*rule, |(number, _)| number), steps.len()));
            caught += usize::from(by.is_some());
            if by.is_some() != mutation.bound.is_some() {
                wrong.push(mutation.name);
            }
            let (rule, steps) =
                by.map_or(("–", "–".to_owned()), |(rule, steps)| (rule, steps.to_string()));
            println!(
                "| {} | {} | {rule} | {name} | {} | {steps} |",
                mutation.name, mutation.what, verdict.states
            );
        }
    }
    println!();
    if wrong.is_empty() {
        println!(
            "{caught} rules are missed when they are off; the others serve progress or redundancy, or another rule stands behind them"
        );
        Ok(ExitCode::SUCCESS)
    } else {
        println!("NOT AS STATED: {}", wrong.join(", "));
        Ok(ExitCode::FAILURE)
    }
}
