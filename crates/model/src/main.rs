//! The model checker as a program.

mod cli;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> Result<ExitCode> {
    cli::run_task()
}
