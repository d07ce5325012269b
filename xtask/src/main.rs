//! Sets up, builds, tests and shows everything: `cargo xtask help`.
//!
//! Each command is a module of its own with its own arguments; this file only chooses.

mod cache;
mod command;
mod golang;
mod images;
mod packages;
mod rig;

use std::process::ExitCode;

use clap::Parser;

/// Sets up, builds, tests and shows everything.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", max_term_width = 110)]
enum Task {
    /// A real Kubernetes of several nodes on this machine.
    Rig(rig::Arguments),
    /// Container images: PostgreSQL, the product, the test client.
    Images(images::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Rig(arguments) => rig::run(arguments),
        Task::Images(arguments) => images::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
