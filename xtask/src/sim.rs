//! Runs the simulator of the protocol: `cargo xtask sim --seeds 2000`, `--seed N` to see one again.

use std::process::ExitCode;

use anyhow::Result;

use crate::{command, this};

/// Arguments go to the simulator as they are.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Becomes the simulator, optimised: a seed is thousands of decisions.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut sim =
        this::cargo(["run", "--quiet", "--locked", "--release", "--package", "matriarch-sim", "--"]);
    command::replace(sim.args(&arguments.arguments))
}
