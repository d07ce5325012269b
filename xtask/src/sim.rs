//! Runs the simulator of the protocol: `cargo xtask sim --seeds 2000`, `--seed N` to see one again; with
//! `--exhaustive` the model checker instead, with `--elector` the simulator of the generic leader election; each takes the
//! arguments after it.

use std::process::ExitCode;

use anyhow::Result;

use crate::{command, this};

/// Arguments go to the simulator as they are, or to the model checker after `--exhaustive`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Becomes the simulator, optimised: a seed is thousands of decisions.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (first, rest) = match arguments.arguments.split_first() {
        Some((first, rest)) if first == "--exhaustive" => ("matriarch-model", rest),
        Some((first, rest)) if first == "--elector" => ("matriarch-elector-sim", rest),
        _ => ("matriarch-sim", arguments.arguments.as_slice()),
    };
    let mut check = this::cargo(["run", "--quiet", "--locked", "--release", "--package", first, "--"]);
    command::replace(check.args(rest))
}
