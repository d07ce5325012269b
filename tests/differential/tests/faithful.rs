//! Random sequences of operations on the model and on real servers, of each major.
//!
//! Runs where `cargo xtask test postgres` runs its servers' tests; without servers it says that it was skipped.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::{Context, Result};
use clap::Parser;
use differential::compare::Lab;
use differential::directed;
use differential::plan::Plan;
use postgres::Binaries;
use sim::misreading::Misreading;

/// Compares the model of PostgreSQL with real servers.
#[derive(Parser)]
struct Arguments {
    /// Run this sequence only, and say what is done.
    #[arg(long)]
    seed: Option<u64>,
    /// The first sequence.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many sequences.
    #[arg(long, default_value_t = 10)]
    sequences: u64,
    /// Operations of each sequence.
    #[arg(long, default_value_t = 20)]
    length: usize,
    /// Sequences at once.
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// Instead: is every error that somebody could make in the model found by a directed sequence?
    #[arg(long)]
    misreadings: bool,
    /// Show a difference as it was found, without leaving operations out.
    #[arg(long)]
    whole: bool,
}

fn servers() -> Result<Vec<Binaries>> {
    if let Some(directories) = std::env::var_os("MATRIARCH_POSTGRES") {
        let at = |directory: PathBuf| {
            Binaries::at(&directory).with_context(|| format!("no servers in {}", directory.display()))
        };
        return std::env::split_paths(&directories).map(at).collect();
    }
    // PostgreSQL refuses to run as root.
    Ok(if rustix::process::getuid().is_root() { Vec::new() } else { Binaries::installed() })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("making a runtime")
}

/// One sequence: what differs.
fn sequence(lab: &Lab, arguments: &Arguments, seed: u64) -> Result<Option<String>> {
    let plan = Plan::new(seed, arguments.length);
    let shown = arguments.seed.is_some();
    let tell = |line: &str| {
        if shown {
            println!("{line}");
        }
    };
    runtime()?.block_on(async {
        match lab.run(&plan, &tell).await? {
            Some(found) if !arguments.whole => {
                println!("seed {seed} on PostgreSQL {} differs; operations are left out", lab.major());
                Ok(Some(lab.shrink(&plan, found).await?.1))
            }
            other => Ok(other),
        }
    })
}

/// One sequence to run.
enum Job {
    Directed(&'static str, Plan),
    Seed(u64),
}

impl Job {
    fn run(&self, lab: &Lab, arguments: &Arguments) -> Result<Option<String>> {
        match self {
            Self::Directed(_, plan) => runtime()?.block_on(lab.run(plan, &|_| ())),
            Self::Seed(seed) => sequence(lab, arguments, *seed),
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directed(name, _) => f.write_str(name),
            Self::Seed(seed) => write!(f, "seed {seed}"),
        }
    }
}

/// Each error that somebody could make in the model, on real servers.
fn misreadings(lab: &Lab, passed: &AtomicU64, failed: &AtomicU64) -> Result<()> {
    for misreading in Misreading::ALL {
        let mut by = None;
        for (name, plan) in directed::sequences() {
            let plan = Plan { misreading: Some(misreading), ..plan };
            // Only where the model itself says that something is to be seen.
            if directed::shows(&plan).is_some() && runtime()?.block_on(lab.finds(&plan))? {
                by = Some(name);
                break;
            }
        }
        match by {
            Some(name) => println!("{misreading:?}: found by \"{name}\" on PostgreSQL {}", lab.major()),
            None => println!("{misreading:?}: NOT FOUND on PostgreSQL {}", lab.major()),
        }
        let counter = if by.is_some() { passed } else { failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn run(arguments: &Arguments) -> Result<(u64, u64)> {
    let (passed, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    for binaries in servers()? {
        let lab = runtime()?.block_on(Lab::new(binaries))?;
        if arguments.misreadings {
            misreadings(&lab, &passed, &failed)?;
            continue;
        }
        let (first, count) = match arguments.seed {
            Some(seed) => (seed, 1),
            None => (arguments.from, arguments.sequences),
        };
        let directed = if first == 1 && count > 1 { directed::sequences() } else { Vec::new() };
        let seeds = (first..first + count).map(Job::Seed);
        let jobs: Vec<Job> =
            directed.into_iter().map(|(name, plan)| Job::Directed(name, plan)).chain(seeds).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..arguments.at_once {
                scope.spawn(|| {
                    while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        match job.run(&lab, arguments) {
                            Ok(None) => {
                                passed.fetch_add(1, Ordering::Relaxed);
                            }
                            Ok(Some(difference)) => {
                                failed.fetch_add(1, Ordering::Relaxed);
                                println!("==== {job} differs\n{difference}====");
                            }
                            Err(error) => {
                                failed.fetch_add(1, Ordering::Relaxed);
                                println!("==== {job}: {error:#}");
                            }
                        }
                    }
                });
            }
        });
    }
    Ok((passed.into_inner(), failed.into_inner()))
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok((0, 0)) => {
            println!("SKIPPED: no PostgreSQL server programs of a supported major");
            ExitCode::SUCCESS
        }
        Ok((passed, failed)) => {
            println!("{passed} passed, {failed} failed");
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
