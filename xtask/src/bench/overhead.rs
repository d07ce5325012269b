//! `bench overhead`: members with agents and the same servers bare, in a root file system of the images.
//!
//! The program is built as the product's are, static and optimised: a figure of memory of any other build says nothing.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::images::TARGET;
use crate::{servers, this};

/// What to measure, and where to note it.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// Where the JSON lines are appended.
    #[arg(long, default_value = "overhead.jsonl")]
    out: PathBuf,
    /// Major version of PostgreSQL.
    #[arg(long, default_value_t = 17)]
    major: u8,
    /// `--clients`, `--seconds`, `--reps`, `--idle`, `--scale`, `--storage`, `--table`; `--help` explains them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Measures. A series goes on where it was left.
///
/// # Errors
/// When there are no servers of that version, or the program does not start.
pub(super) fn run(wanted: &Arguments) -> Result<ExitCode> {
    let servers = servers::ensure()?;
    let servers = servers.iter().find(|servers| servers.major == wanted.major);
    let servers = servers.with_context(|| format!("PostgreSQL {} is not supported", wanted.major))?;
    let lines = OpenOptions::new().create(true).read(true).append(true).open(&wanted.out);
    let lines = lines.with_context(|| format!("opening {}", wanted.out.display()))?;
    let mut bench = this::cargo(["run", "--locked", "--quiet", "--release", "--target", TARGET]);
    bench.args(["--package", "matriarch-bench", "--config", &servers.cargo_runner()?, "--", "overhead"]);
    // Inside there is nothing of this machine's file system: the program gets its file as standard input.
    bench.args(&wanted.options).env(TARGET_COMPILER, "musl-gcc").stdin(lines);
    let status = bench.status().context("running the measurement")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What C is compiled with for [`TARGET`].
const TARGET_COMPILER: &str = "CC_x86_64_unknown_linux_musl";
