//! `matriarch-sim`: runs seeds, replays or shrinks one, switches rules off one at a time, or replays an agent's log.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use ha::Rules;
use sim::faults::FAULTS;
use sim::mutation::WorldRules;
use sim::run::run_without;
use sim::{Kind, Mutation, crew, replay, run, script, table};

/// Seeds that a mutation has before it counts as missed.
const MUTATION_SEEDS: u64 = 600;

/// Seeded simulator of the protocol.
#[derive(Debug, Parser)]
#[allow(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[command(name = "matriarch-sim")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Replay one seed with a readable trace.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: leave faults out until it passes, and print those that are needed.
    #[arg(long)]
    shrink: bool,
    /// Switch this rule off.
    #[arg(long)]
    mutation: Option<String>,
    /// Switch each rule off in turn and say what catches it.
    #[arg(long)]
    mutations: bool,
    /// With --mutations: print the table as Markdown.
    #[arg(long)]
    markdown: bool,
    /// With --mutations: write the table into the document.
    #[arg(long)]
    write: bool,
    /// With --mutations: only compare the names in the document with those that there are.
    #[arg(long)]
    check: bool,
    /// The document.
    #[arg(long, default_value = "docs/protocol.md")]
    document: PathBuf,
    /// Feed an agent's decision log to the same code: does it decide the same?
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Run one scenario and print its transcript.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Nothing breaks (L2, L3).
    #[arg(long)]
    calm: bool,
    /// Asynchronous mode: one master at a time and recovery are judged, not losses.
    #[arg(long)]
    asynchronous: bool,
    /// These kinds of faults come much more often.
    #[arg(long, value_delimiter = ',')]
    focus: Vec<String>,
    /// Print one number for all that happens in each seed, to compare two runs.
    #[arg(long)]
    digest: bool,
    /// Go on after the first failing seed.
    #[arg(long)]
    keep_going: bool,
    /// Threads.
    #[arg(long)]
    jobs: Option<usize>,
}

/// Does what the command line asks for.
pub(crate) fn run_task() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.replay {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        println!("{}", replay::replay(&text)?);
        return Ok(());
    }
    if let Some(file) = &arguments.scenario {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        print!("{}", script::transcript(&text)?);
        return Ok(());
    }
    if arguments.mutations {
        return mutations(&arguments);
    }
    let mut kind = Kind { faults: !arguments.calm, asynchronous: arguments.asynchronous, focus: &[] };
    let (rules, world_rules) = match &arguments.mutation {
        None => (Rules::default(), WorldRules::default()),
        Some(name) => {
            let mutation = Mutation::named(name).with_context(|| {
                let names: Vec<&str> = Mutation::ALL.iter().map(|mutation| mutation.name).collect();
                format!("no mutation {name:?}; there are: {}", names.join(", "))
            })?;
            kind.focus = mutation.focus;
            kind.asynchronous |= mutation.asynchronous;
            mutation.rules()
        }
    };
    if !arguments.focus.is_empty() {
        let chosen =
            FAULTS.iter().map(|(name, ..)| *name).filter(|name| arguments.focus.iter().any(|f| f == name));
        // For as long as the command runs.
        kind.focus = Vec::leak(chosen.collect());
    }
    if arguments.digest {
        digests(&arguments, kind);
        return Ok(());
    }
    match arguments.seed {
        Some(seed) if arguments.shrink => shrink(seed, rules, world_rules, kind),
        Some(seed) => {
            let outcome = run(seed, rules, world_rules, kind, true);
            println!("{outcome:#?}");
            anyhow::ensure!(outcome.violation.is_none(), "seed {seed} fails");
            Ok(())
        }
        None => seeds(&arguments, rules, world_rules, kind),
    }
}

fn seeds(arguments: &Arguments, rules: Rules, world_rules: WorldRules, kind: Kind) -> anyhow::Result<()> {
    let jobs = arguments.jobs.unwrap_or_else(crew::cores);
    let count = arguments.seeds.unwrap_or(100);
    let (outcomes, processor) = crew::all(
        jobs,
        count,
        |number| {
            let outcome = run(arguments.from + number, rules, world_rules, kind, false);
            if let Some(violation) = &outcome.violation {
                println!("seed {}: {violation}", arguments.from + number);
            }
            outcome
        },
        |outcome| outcome.violation.is_some() && !arguments.keep_going,
    );
    let sum =
        |value: fn(&sim::Outcome) -> u64| outcomes.iter().map(|(_, outcome)| value(outcome)).sum::<u64>();
    let failed = sum(|outcome| u64::from(outcome.violation.is_some()));
    let hours = sim::dice::seconds(sum(|outcome| outcome.simulated)) / 3600.0;
    println!(
        "{} seeds, {hours:.2} cluster-hours, {} events, {} commits, {} faults, {} elections, {failed} failing seeds, {} left with one copy that waits for a human, {} forced promotions; {:.1} cluster-hours per core-minute",
        outcomes.len(),
        sum(|outcome| outcome.events),
        sum(|outcome| outcome.acknowledged),
        sum(|outcome| outcome.fault_count),
        sum(|outcome| outcome.elections),
        sum(|outcome| u64::from(outcome.waits_for_human)),
        sum(|outcome| outcome.forced),
        hours / (processor / 60.0)
    );
    anyhow::ensure!(
        failed == 0,
        "replay with --seed, and find the faults that matter with --seed N --shrink"
    );
    Ok(())
}

fn digests(arguments: &Arguments, kind: Kind) {
    let (jobs, count) = (arguments.jobs.unwrap_or_else(crew::cores), arguments.seeds.unwrap_or(100));
    let (digests, _) =
        crew::all(jobs, count, |number| sim::run::digest(arguments.from + number, kind), |_| false);
    for (number, digest) in digests {
        println!("{} {digest:016x}", arguments.from + number);
    }
}

/// Leaves out faults, half of them, a quarter, one by one, as long as the seed still fails.
fn shrink(seed: u64, rules: Rules, world_rules: WorldRules, kind: Kind) -> anyhow::Result<()> {
    let whole = run_without(seed, rules, world_rules, kind, &BTreeSet::new(), false);
    let violation = whole.violation.with_context(|| format!("seed {seed} passes: nothing to shrink"))?;
    println!("seed {seed} with {} faults: {violation}", whole.fault_count);
    let mut skip = BTreeSet::new();
    let mut size = whole.fault_count.div_ceil(2).max(1);
    loop {
        let mut first = 1;
        let mut smaller = false;
        while first <= whole.fault_count {
            let mut tried = skip.clone();
            tried.extend(first..(first + size).min(whole.fault_count + 1));
            // Without faults there is nothing to find: those after the last one are left out, too.
            if tried.len() > skip.len()
                && run_without(seed, rules, world_rules, kind, &tried, false).violation.is_some()
            {
                skip = tried;
                smaller = true;
            }
            first += size;
        }
        if size == 1 && !smaller {
            break;
        }
        size = size.div_ceil(2);
    }
    skip.insert(u64::MAX);
    let least = run_without(seed, rules, world_rules, kind, &skip, false);
    println!("fails with {} of them: {}", least.faults.len(), least.violation.unwrap_or_default());
    for fault in &least.faults {
        println!("{fault}");
    }
    Ok(())
}

fn mutations(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.check {
        return table::check(&std::fs::read_to_string(&arguments.document)?);
    }
    let jobs = arguments.jobs.unwrap_or_else(crew::cores);
    let all = Mutation::ALL;
    let (rows, _) = crew::all(
        jobs,
        all.len() as u64,
        |number| {
            let mutation = usize::try_from(number).ok().and_then(|number| all.get(number))?;
            let row = table::examine(mutation, arguments.from, arguments.seeds.unwrap_or(MUTATION_SEEDS));
            if !arguments.markdown {
                println!("{}", row.line());
            }
            Some(row)
        },
        |_| false,
    );
    let rows: Vec<_> = rows.into_iter().filter_map(|(_, row)| row).collect();
    let table = table::markdown(&rows);
    if arguments.markdown {
        print!("{table}");
    }
    if arguments.write {
        let document = std::fs::read_to_string(&arguments.document).unwrap_or_default();
        std::fs::write(&arguments.document, table::written(&document, &table))?;
    }
    let missed: Vec<&str> = rows.iter().filter(|row| row.is_missed()).map(|row| row.mutation.name).collect();
    anyhow::ensure!(missed.is_empty(), "not caught: {}", missed.join(", "));
    println!(
        "{} rules, {} caught by an invariant",
        rows.len(),
        rows.iter().filter(|row| row.caught.is_some()).count()
    );
    Ok(())
}
