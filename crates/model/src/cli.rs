//! `matriarch-model`: searches every state within a bound, and shows that the search can fail.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

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
    for (bound, verdict) in side_by_side(bounds, |bound| check(bound.clone(), arguments.most)) {
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

/// Does these searches on all cores, the last first, since the largest stand at the end; answers in the order given. Each
/// search is on one thread: the order in which it finds states, and so what it counts, is always the same.
fn side_by_side<T: Sync, R: Send>(searches: Vec<T>, search: impl Fn(&T) -> R + Sync) -> Vec<(T, R)> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (left, done) = (AtomicUsize::new(searches.len()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..cores.min(searches.len()) {
            scope.spawn(|| {
                while let Ok(after) =
                    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                {
                    let number = after - 1;
                    let found = searches.get(number).map(&search);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((number, found));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    searches.into_iter().zip(done).filter_map(|(searched, (_, found))| Some((searched, found?))).collect()
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
    let mut searches = Vec::new();
    for mutation in Mutation::ALL {
        for name in mutation.bound.map_or_else(|| vec!["two", "three"], |name| vec![name]) {
            let bound = Bound::named(name).with_context(|| format!("no bound is called {name}"))?;
            searches.push((mutation, mutation.apply(bound)));
        }
    }
    for ((mutation, bound), verdict) in side_by_side(searches, |(_, bound)| check(bound.clone(), None)) {
        let by = verdict
            .broken
            .as_ref()
            .map(|(rule, steps)| (rule.split_once(' ').map_or(*rule, |(number, _)| number), steps.len()));
        caught += usize::from(by.is_some());
        if by.is_some() != mutation.bound.is_some() {
            wrong.push(mutation.name);
        }
        let (rule, steps) = by.map_or(("–", "–".to_owned()), |(rule, steps)| (rule, steps.to_string()));
        println!(
            "| {} | {} | {rule} | {} | {} | {steps} |",
            mutation.name, mutation.what, bound.name, verdict.states
        );
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
