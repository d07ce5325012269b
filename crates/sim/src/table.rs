//! The table of mutations: which rule, what is switched off, which invariant misses it, and after how many seeds.
//!
//! A rule that no invariant misses has to show what else it is good for: the same seeds are run with and without it,
//! and the time without acknowledgements and the worlds that wait for a human are compared.

use std::fmt::Write;

use anyhow::Context;
use ha::Rules;

use crate::mutation::{Mutation, Serves, WorldRules};
use crate::run::{Outcome, run};

/// Where the table stands in a document.
const BEGIN: &str = "<!-- mutations:begin -->";
const END: &str = "<!-- mutations:end -->";
/// Seeds of a comparison.
const COMPARED: u64 = 60;

/// Seeds after the first that stands still (L1) in which an invariant of safety is looked for.
const LONGER: u64 = 150;

/// What became of one mutation.
#[derive(Debug)]
pub struct Row {
    /// Which.
    pub mutation: &'static Mutation,
    /// After how many seeds, and the whole violation.
    pub caught: Option<(u64, String)>,
    /// What is measured instead.
    pub shown: String,
}

impl Row {
    /// Whether an invariant should have caught it and none did.
    pub fn is_missed(&self) -> bool {
        self.mutation.serves == Serves::Safety && self.caught.is_none()
    }

    fn markdown(&self) -> String {
        let (by, seeds) = match &self.caught {
            Some((seeds, violation)) => {
                (violation.split(':').next().unwrap_or_default().to_owned(), seeds.to_string())
            }
            None => (format!("none: {}. {}", self.serves(), self.shown), String::from("–")),
        };
        format!("| `{}` | {} | {by} | {seeds} |", self.mutation.name, self.mutation.what)
    }

    fn serves(&self) -> &'static str {
        match self.mutation.serves {
            Serves::Safety => "not caught",
            Serves::Redundancy => "redundancy",
            Serves::Progress => "progress",
        }
    }

    /// One line for a terminal.
    pub fn line(&self) -> String {
        match &self.caught {
            Some((seeds, violation)) => {
                let mut violation = violation.clone();
                violation.truncate(90);
                format!("{:<26} seeds {seeds:>5}  {violation}", self.mutation.name)
            }
            None => format!("{:<26} no invariant: {}. {}", self.mutation.name, self.serves(), self.shown),
        }
    }
}

/// Looks for the first of these seeds that fails without the rule, and not with it.
pub fn examine(mutation: &'static Mutation, from: u64, seeds: u64) -> Row {
    let (rules, world_rules) = mutation.rules();
    let kind = mutation.kind();
    let whole = |seed| run(seed, Rules::default(), WorldRules::default(), kind, false);
    let most = if mutation.serves == Serves::Safety { seeds } else { COMPARED };
    let (mut with, mut without) = (Sum::default(), Sum::default());
    // What only stands still may lose something in another world: it is looked for there, for a while.
    let mut stands_still: Option<(u64, String)> = None;
    for seed in from..from.saturating_add(most) {
        if stands_still.as_ref().is_some_and(|(after, _)| seed - from >= after + LONGER) {
            break;
        }
        let outcome = run(seed, rules, world_rules, kind, false);
        if mutation.serves == Serves::Safety {
            // A seed that fails with every rule on says nothing about this one.
            if let Some(violation) = outcome.violation
                && whole(seed).violation.is_none()
            {
                let caught = (seed - from + 1, violation);
                if !caught.1.starts_with('L') || mutation.stands_still {
                    return Row { mutation, caught: Some(caught), shown: String::new() };
                }
                stands_still.get_or_insert(caught);
            }
        } else {
            without.add(&outcome);
            with.add(&whole(seed));
        }
    }
    if stands_still.is_some() {
        return Row { mutation, caught: stands_still, shown: String::new() };
    }
    let shown = if mutation.serves == Serves::Safety {
        String::new()
    } else {
        format!(
            "With it, without it, in {COMPARED} seeds: {} and {} s without acknowledgements, {} and {} elections, {} and {} worlds that wait for a human, {} and {} violations",
            with.gaps,
            without.gaps,
            with.elections,
            without.elections,
            with.human,
            without.human,
            with.violations,
            without.violations
        )
    };
    Row { mutation, caught: None, shown }
}

#[derive(Debug, Default)]
struct Sum {
    gaps: u64,
    elections: u64,
    human: u64,
    violations: u64,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.gaps += outcome.gaps / crate::dice::SECOND;
        self.elections += outcome.elections;
        self.human += u64::from(outcome.waits_for_human);
        self.violations += u64::from(outcome.violation.is_some());
    }
}

/// The table.
pub fn markdown(rows: &[Row]) -> String {
    let mut table = String::from(
        "| rule switched off | what that means | caught by | seeds needed |\n|---|---|---|---|\n",
    );
    for row in rows {
        let _ = writeln!(table, "{}", row.markdown());
    }
    table
}

/// The document with this table in it; appended when it has no place for it yet.
pub fn written(document: &str, table: &str) -> String {
    let block = format!("{BEGIN}\n\n{table}\n{END}");
    match (document.find(BEGIN), document.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            let (before, after) = (&document[..begin], &document[end + END.len()..]);
            format!("{before}{block}{after}")
        }
        _ => format!("{}\n\n## Every rule is needed\n\n{block}\n", document.trim_end()),
    }
}

/// Whether the table in this document names exactly the mutations that there are.
///
/// # Errors
/// When it does not, or when it has no table.
pub fn check(document: &str) -> anyhow::Result<()> {
    let begin = document.find(BEGIN).context("no table of mutations")?;
    let end = document.find(END).context("no end of the table of mutations")?;
    let block = document.get(begin..end).context("the table's markers are out of order")?;
    let names: Vec<&str> = block
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name))
        .collect();
    let all: Vec<&str> = Mutation::ALL.iter().map(|mutation| mutation.name).collect();
    anyhow::ensure!(
        names == all,
        "the table names {names:?}, there are {all:?}: cargo xtask sim --mutations --write"
    );
    Ok(())
}
