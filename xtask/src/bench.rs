//! Measures on the rig: repetitions, percentiles, and the command that makes the figures.

mod overhead;
mod scale;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::this::{self, StartedRig};
use crate::{command, end_to_end};

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
    /// Commits of a member with agent and quorum against the same servers bare, and what an agent takes at rest.
    Overhead(overhead::Arguments),
    /// What the operator takes with 1, 20, 200 clusters, and how soon an edit has its effect.
    #[command(disable_help_flag = true)]
    Scale {
        /// `--clusters`, `--reps`, `--edits`, `--rest`, `--out`, `--table`; `--help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// With one of these nothing is measured, so it needs neither a rig nor images.
const TELLING: [&str; 3] = ["--table", "--help", "-h"];

/// Starts the rig unless it runs, brings this tree onto it, and measures. A series goes on where it was left.
///
/// # Errors
/// When something of that cannot be started.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let arguments = match &arguments.what {
        What::Failover { arguments } => arguments,
        What::Overhead(arguments) => return overhead::run(arguments),
        What::Scale { arguments } => return scale::run(arguments),
    };
    if arguments.iter().any(|argument| TELLING.contains(&argument.as_str())) {
        let mut tell = this::cargo(["run", "--quiet", "--locked", "--package", "matriarch-e2e", "--"]);
        let status = tell.arg("failover").args(arguments).status().context("telling what was measured")?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let _rig = StartedRig::unless_running(None, &["--fsync"])?;
    let mut program = end_to_end::program()?;
    if let Some(peer) = peer(arguments) {
        let load = this::xtask(["images", "load", "--peer", peer])?;
        command::run("build the image of the peer and load it", load)?;
    }
    program.arg("failover").args(arguments);
    let status = program.status().context("running the measurement")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whom to compare with, when it is somebody else whose image must be there.
fn peer(arguments: &[String]) -> Option<&str> {
    let (at, argument) = arguments.iter().enumerate().find(|(_, argument)| argument.starts_with("--peer"))?;
    let named = argument.strip_prefix("--peer=").or_else(|| arguments.get(at + 1).map(String::as_str));
    named.filter(|named| *named != "matriarch")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_found_in_both_forms() {
        let of = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(peer(&of("--reps 5 --peer patroni")), Some("patroni"));
        assert_eq!(peer(&of("--peer=patroni --reps 5")), Some("patroni"));
        assert_eq!(peer(&of("--peer matriarch")), None);
        assert_eq!(peer(&of("--reps 5")), None);
    }
}
