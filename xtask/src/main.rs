//! Sets up, builds, tests and shows everything: `cargo xtask help`.
//!
//! Each command is a module of its own with its own arguments; [`task`] only chooses.

mod bench;
mod cache;
mod command;
mod crd;
mod demo;
mod deploy;
mod differential;
mod end_to_end;
mod golang;
mod images;
mod packages;
mod rig;
mod servers;
mod sim;
mod task;
mod test;
mod this;
mod tidy;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    task::Task::parse().run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
