//! End-to-end tests on a real Kubernetes: faults are made for real, clients are judged by their own log.
//!
//! The tests run one after another on one rig; each prints what it measured. They need a cluster with the operator
//! installed (`cargo xtask test e2e` sees to that). A test that cannot fail is a defect: each scenario's doc comment
//! names a way to break the product that turns it red.

mod bench;
mod changes;
mod client;
mod cluster;
mod diagnose;
mod faults;
mod hearing;
mod judge;
mod runner;
mod scenarios;
mod seen;
mod wait;
mod world;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = runner::Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(runner::run(&arguments)),
        Err(error) => Err(anyhow::Error::new(error).context("start the runtime")),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
