//! Measures on the rig: repetitions, percentiles, and the command that makes the figures.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::end_to_end;
use crate::this::StartedRig;

/// What to measure.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// How long clients cannot write when the master fails, by fault; JSON lines, and a table of percentiles.
    #[command(disable_help_flag = true)]
    Failover {
        /// `--faults`, `--reps`, `--peer`, `--settings`, `--slice-changes`, `--away`, `--out`, `--table`, `--page`, `--picture`;
        /// `--help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// Starts the rig unless it runs, brings this tree onto it, and measures. A series goes on where it was left.
///
/// # Errors
/// When something of that cannot be started.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let What::Failover { arguments } = &arguments.what;
    let _rig = StartedRig::unless_running(None, &["--fsync"])?;
    let mut program = end_to_end::program()?;
    program.arg("failover").args(arguments);
    let status = program.status().context("running the measurement")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
