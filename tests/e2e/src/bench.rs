//! How long clients cannot write when the master fails, by fault: measured over and over, told as percentiles.
//!
//! It decides nothing and judges as the scenarios do: a repetition counts only when the epoch moved, everything is whole
//! again without a human, and no acknowledged row is lost. Each repetition is one JSON line, appended and flushed as soon
//! as it is known, so that a long series can be done in parts: what is there already is not measured again.

mod series;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::Value;

use crate::faults::Fault;
use crate::world::World;

pub(crate) use table::table;

/// What is to be measured.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Which faults; all when left out.
    #[arg(long, value_delimiter = ',', value_enum)]
    faults: Vec<Fault>,
    /// How many repetitions of each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    reps: u32,
    /// A change of the smallest manifest, as a merge patch in JSON, such as `{"spec":{"failover":{"detection":"1s"}}}`.
    #[arg(long, default_value = "{}")]
    settings: String,
    /// Where the JSON lines are appended.
    #[arg(long, default_value = "failover.jsonl")]
    out: PathBuf,
    /// Prints the table of what is in the file, and measures nothing.
    #[arg(long)]
    table: bool,
}

/// Measures, then prints the table of the whole file.
pub(crate) async fn run(world: &World, arguments: &Arguments) -> Result<()> {
    let settings: Value = serde_json::from_str(&arguments.settings).context("--settings is no JSON")?;
    ensure!(settings.is_object(), "--settings must be a JSON object");
    let faults = if arguments.faults.is_empty() { Fault::ALL.to_vec() } else { arguments.faults.clone() };
    if !arguments.table {
        series::measure(world, &faults, arguments.reps, &settings, &arguments.out).await?;
    }
    println!("{}", table(&series::read(&arguments.out)?));
    Ok(())
}
