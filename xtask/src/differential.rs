//! Compares the simulator's model of PostgreSQL with real servers: `cargo xtask differential --seed N` shows one
//! sequence of operations, `--sequences 500` is the long form. `cargo xtask test postgres` runs the short one.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::servers::{self, Servers};
use crate::this;

/// Arguments go to the test as they are, for every major or for one.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this major version of PostgreSQL.
    #[arg(long)]
    major: Option<u8>,
    /// `--seed N`, `--from N`, `--sequences N`, `--length N`, `--at-once N`, `--whole`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// The test among the servers of one major.
pub(crate) fn command(servers: &Servers, arguments: &[String]) -> Result<Command> {
    let mut test = this::cargo(["test", "--quiet", "--package", "matriarch-differential", "--locked"]);
    test.args(["--test", "faithful", "--config", &servers.cargo_runner()?, "--"]).args(arguments);
    Ok(test)
}

/// Runs it for every major.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut well = true;
    for servers in servers::ensure()? {
        if arguments.major.is_none_or(|major| major == servers.major) {
            println!("== PostgreSQL {}", servers.major);
            well &= command(&servers, &arguments.arguments)?.status()?.success();
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
