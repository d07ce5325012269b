//! Sets up, builds, tests and shows everything: `cargo xtask help`.
//!
//! Each command is a module of its own with its own arguments; this file only chooses.

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
mod test;
mod this;
mod tidy;

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
    /// Install the charts of this tree on the rig.
    Deploy(deploy::Arguments),
    /// Three members form, the master dies, nothing is lost; leaves the cluster up to look at.
    Demo(demo::Arguments),
    /// Run the tests, all of them or one layer.
    Test(test::Arguments),
    /// Measure on the rig.
    Bench(bench::Arguments),
    /// Check house rules that a compiler does not.
    Tidy(tidy::Arguments),
    /// Write the custom resource definitions.
    Crd(crd::Arguments),
    /// Run the simulator of the protocol.
    Sim(sim::Arguments),
    /// Compare the simulator's model of PostgreSQL with real servers.
    Differential(differential::Arguments),
    /// Run a program among the servers of one major version.
    #[command(hide = true)]
    Servers(servers::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Rig(arguments) => rig::run(arguments),
        Task::Images(arguments) => images::run(&arguments),
        Task::Deploy(arguments) => deploy::command(&arguments),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Tidy(arguments) => tidy::run(&arguments),
        Task::Crd(arguments) => crd::run(&arguments),
        Task::Sim(arguments) => sim::run(&arguments),
        Task::Differential(arguments) => differential::run(&arguments),
        Task::Servers(arguments) => servers::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
