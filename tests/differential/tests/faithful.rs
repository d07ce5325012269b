//! Random sequences of operations on the model and on real servers, of each major.
//!
//! Runs where `cargo xtask test postgres` runs its servers' tests; without servers it says that it was skipped.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use clap::Parser;
use differential::compare::Lab;
use differential::plan::Plan;
use postgres::Binaries;

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

fn run(arguments: &Arguments) -> Result<(u64, u64)> {
    let (passed, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    for binaries in servers()? {
        let lab = runtime()?.block_on(Lab::new(binaries))?;
        let (first, count) = match arguments.seed {
            Some(seed) => (seed, 1),
            None => (arguments.from, arguments.sequences),
        };
        let next = AtomicU64::new(first);
        std::thread::scope(|scope| {
            for _ in 0..arguments.at_once {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + count {
                            return;
                        }
                        let difference = sequence(&lab, arguments, seed);
                        match difference {
                            Ok(None) => {
                                passed.fetch_add(1, Ordering::Relaxed);
                            }
                            Ok(Some(difference)) => {
                                failed.fetch_add(1, Ordering::Relaxed);
                                println!("==== seed {seed} differs\n{difference}====");
                            }
                            Err(error) => {
                                failed.fetch_add(1, Ordering::Relaxed);
                                println!("==== seed {seed}: {error:#}");
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
