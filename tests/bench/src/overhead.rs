//! What an agent costs its server: commits of a pair of members with agents and quorum against the same servers bare.
//!
//! Two members form as they do in pods: supervisors, agents, a quorum of one. Their directories are copied, and the bare
//! pair is nothing but the same servers started on the copies, by the same start command, with the same configuration
//! files, addresses, certificates and `synchronous_standby_names`; that the settings in force are equal is checked, not
//! assumed. Only one pair runs at a time. Every repetition starts both anew, alternating which comes first, and drives the
//! master with pgbench (`simple-update`, prepared) from beside it. Before that, the agents' pair does nothing for a while:
//! memory and computing time of each agent and supervisor.
//!
//! Targets: at least 97 % of the bare pair's commits; an agent of at most 20 MiB that takes less than 1 % of a core.

mod bare;
mod idle;
mod load;
mod pair;
mod repetition;
mod settings;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use postgres::Binaries;
use serde::{Deserialize, Serialize};

use crate::lines::Lines;
use repetition::{Bench, Line};

/// Where the servers keep their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Storage {
    /// A file system of the machine: a commit waits for its disk.
    Disk,
    /// Memory: a commit waits for nothing, so that all of an agent's computing shows.
    Memory,
}

impl Storage {
    /// A directory there in which a server may write.
    fn directory(self) -> PathBuf {
        PathBuf::from(match self {
            Self::Disk => "/var/lib/postgresql",
            Self::Memory => "/tmp",
        })
    }
}

/// What is to be measured.
#[derive(Debug, Clone, Parser)]
pub(crate) struct Arguments {
    /// How many clients at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32], value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: Vec<u32>,
    /// How long each number of clients writes.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How long the agents' pair does nothing, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3600))]
    idle: u64,
    /// How many repetitions.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    reps: u32,
    /// The scale of pgbench's tables: a hundred thousand rows each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    scale: u32,
    /// Where the servers keep their data.
    #[arg(long, value_enum, default_value_t = Storage::Disk)]
    storage: Storage,
    /// Prints the table of what is in the file, and measures nothing.
    #[arg(long)]
    table: bool,
}

/// Measures, then prints the table of the whole file, which is standard input.
///
/// # Errors
/// When something cannot be measured.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut lines = Lines::handed_over()?;
    if !arguments.table {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.context("start the runtime")?.block_on(measure(arguments, &mut lines))?;
    }
    println!("{}", table::table(&lines.read()?));
    Ok(())
}

async fn measure(arguments: &Arguments, lines: &mut Lines) -> Result<()> {
    let directory = std::env::var_os("MATRIARCH_POSTGRES")
        .context("which servers? `cargo xtask bench overhead` says it")?;
    let binaries = Binaries::at(&PathBuf::from(directory)).context("there are no programs of a server")?;
    let known: Vec<Line> = lines.read()?;
    let mut clients = arguments.clients.clone();
    clients.sort_unstable();
    clients.dedup();
    let wanted = repetition::Settings {
        major: binaries.major().0,
        storage: arguments.storage,
        scale: arguments.scale,
        seconds: arguments.seconds,
        idle_seconds: arguments.idle,
    };
    let alike = |line: &&Line| line.settings == wanted && line.clients() == clients;
    let there = u32::try_from(known.iter().filter(alike).count()).unwrap_or(u32::MAX);
    if there >= arguments.reps {
        return Ok(());
    }
    let bench = Bench::prepare(&binaries, wanted, clients).await?;
    for rep in there..arguments.reps {
        let line = bench.once(rep % 2 == 0).await?;
        println!("{:>3}: {}", rep + 1, line.told());
        lines.append(&line)?;
    }
    Ok(())
}

/// Bound of one question to a server.
const ASK: Duration = Duration::from_secs(10);
/// How long a pair may take to come up or to go. Generous: it only catches a hang.
const BOUND: Duration = Duration::from_secs(180);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
