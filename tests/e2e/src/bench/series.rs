//! One fault after another, round by round, on one system; every repetition a line, failed ones too.
//!
//! It goes on where the file ends. A repetition that fails is a line with its failure; the system is made anew after it, and
//! the series goes on. It ends early only when twice in a row no fault could be made: then it measures nothing.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Arguments;
use super::line::{self, Line, Series};
use super::machine::Machine;
use super::repetition::{self, Conditions};
use super::slices;
use super::system::{System, formed};
use crate::cluster::FORM;
use crate::diagnose;
use crate::faults::{self, Fault};
use crate::world::World;

/// Measures what is missing in the file.
pub(crate) async fn measure<S: System>(
    world: &World,
    faults: &[Fault],
    settings: &Value,
    arguments: &Arguments,
) -> Result<()> {
    let conditions = Conditions {
        settings: settings.clone(),
        slice_changes: arguments.slice_changes,
        away: arguments.away,
        machine: Machine::look(world).await,
    };
    let wanted = Series {
        peer: S::PEER.to_owned(),
        settings: settings.to_string(),
        slice_changes: arguments.slice_changes,
    };
    let known = known(&arguments.out)?;
    let known: Vec<String> =
        known.into_iter().filter(|line| line.series() == wanted).map(|line| line.fault).collect();
    let todo = missing(faults, arguments.reps, &known);
    println!(
        "{} repetitions to do, {} of {} are in {}",
        todo.len(),
        known.len(),
        S::PEER,
        arguments.out.display()
    );
    if todo.is_empty() {
        return Ok(());
    }
    if !arguments.slice_changes {
        return Box::pin(all::<S>(world, &todo, &conditions, &arguments.out)).await;
    }
    let namespace = slices::make(world).await?;
    let outcome = tokio::select! {
        outcome = Box::pin(all::<S>(world, &todo, &conditions, &arguments.out)) => outcome,
        never = slices::change(world, &namespace) => match never {},
    };
    world.remove_namespace(&namespace).await?;
    outcome
}

fn known(file: &Path) -> Result<Vec<Line>> {
    let found = line::read(file)?;
    for warning in &found.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(found.lines)
}

/// Round by round, so that a series that is cut short has something of every fault.
fn missing(faults: &[Fault], reps: u32, known: &[String]) -> Vec<Fault> {
    let there = |fault: Fault| known.iter().filter(|name| *name == fault.name()).count();
    (0..reps as usize)
        .flat_map(|round| faults.iter().copied().filter(move |fault| there(*fault) <= round))
        .collect()
}

async fn all<S: System>(world: &World, todo: &[Fault], conditions: &Conditions, file: &Path) -> Result<()> {
    let mut out = line::append_to(file)?;
    let mut system: Option<S> = None;
    let mut idle = 0;
    for (done, fault) in todo.iter().enumerate() {
        loop {
            let outcome = attempt(world, &mut system, *fault, conditions).await;
            let failed = outcome.as_ref().map_or(true, |line| line.failure.is_some());
            if failed {
                start_over(world, &mut system).await;
            }
            match outcome {
                Ok(line) => {
                    line::append(&mut out, &line)?;
                    println!("{:>4} of {}  {}", done + 1, todo.len(), in_short(&line));
                    idle = 0;
                    break;
                }
                Err(error) if idle == 0 => {
                    idle += 1;
                    eprintln!("warning: {}: not made: {error:#}; once more", fault.name());
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("{}: not made, twice", fault.name()));
                }
            }
        }
    }
    match system.take() {
        Some(system) => system.remove(world).await,
        None => Ok(()),
    }
}

async fn attempt<S: System>(
    world: &World,
    system: &mut Option<S>,
    fault: Fault,
    conditions: &Conditions,
) -> Result<Line> {
    let known = match system.take() {
        Some(known) => known,
        None => formed(world, &conditions.settings, FORM).await?,
    };
    let known = system.insert(known);
    repetition::once(world, known, fault, conditions).await
}

/// Mends, shows what can be shown, and forgets the system. What of that fails is told: the next one is a new one anyway.
async fn start_over<S: System>(world: &World, system: &mut Option<S>) {
    // The API server first, or nothing can be shown.
    if let Err(error) = faults::mend(world).await {
        eprintln!("warning: mending: {error:#}");
    }
    if let Some(system) = system.take() {
        diagnose::dump(world).await;
        if let Err(error) = system.remove(world).await {
            eprintln!("warning: removing: {error:#}");
        }
    }
}

fn in_short(line: &Line) -> String {
    let gaps: Vec<String> = line.gap_ms.iter().map(|(kind, ms)| format!("{kind} {ms} ms")).collect();
    let epoch =
        line.epoch_ms.map_or_else(|| "no later epoch".to_owned(), |ms| format!("epoch after {ms} ms"));
    let healed = line.healed_ms.map_or_else(|| "not healed".to_owned(), |ms| format!("healed after {ms} ms"));
    let failure = line.failure.as_ref().map(|text| format!("  FAILED: {text}")).unwrap_or_default();
    format!("{:<22} {}, {epoch}, {healed}, lost {}{failure}", line.fault, gaps.join(", "), line.lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_goes_on_where_it_was_left_round_by_round() {
        let faults = [Fault::Delete, Fault::Postmaster];
        let known = vec!["delete".to_owned(), "delete".to_owned(), "container".to_owned()];
        let todo = missing(&faults, 3, &known);
        assert_eq!(todo, [Fault::Postmaster, Fault::Postmaster, Fault::Delete, Fault::Postmaster]);
        assert_eq!(missing(&faults, 1, &[]), faults);
        assert!(missing(&[Fault::Delete], 2, &known).is_empty());
    }
}
