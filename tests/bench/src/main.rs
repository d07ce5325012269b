//! Measures what does not need a rig with nodes; `cargo xtask bench` starts it and says where everything is.
//!
//! It judges nothing: a figure is told with its target beside it, and only what cannot be measured is an error.

#![allow(clippy::cast_precision_loss, reason = "figures are told with a few digits")]

mod lines;
mod overhead;
mod percentiles;
mod process;
mod scale;

use std::process::ExitCode;

use clap::Parser;

/// What to measure.
#[derive(Debug, Parser)]
#[command(name = "matriarch-bench")]
enum Bench {
    /// The operator with ever more clusters.
    Scale(scale::Arguments),
    /// What an agent costs its server.
    Overhead(overhead::Arguments),
}

fn main() -> ExitCode {
    // Members start this very program.
    if let Some("supervise" | "run") = std::env::args().nth(1).as_deref() {
        return driver::under_test::main();
    }
    let ended = match Bench::parse() {
        Bench::Scale(arguments) => scale::run(&arguments),
        Bench::Overhead(arguments) => overhead::run(&arguments),
    };
    let Err(error) = ended else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
