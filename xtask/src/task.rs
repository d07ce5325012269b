//! Which commands there are.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::{bench, crd, demo, deploy, differential, images, rig, servers, sim, test, tidy};

/// Sets up, builds, tests and shows everything.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", max_term_width = 110)]
pub(crate) enum Task {
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

impl Task {
    /// Does it.
    ///
    /// # Errors
    /// What went wrong, with what to do about it.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Rig(arguments) => rig::run(arguments),
            Self::Images(arguments) => images::run(&arguments),
            Self::Deploy(arguments) => deploy::command(&arguments),
            Self::Demo(arguments) => demo::run(&arguments),
            Self::Test(arguments) => test::run(&arguments),
            Self::Bench(arguments) => bench::run(&arguments),
            Self::Tidy(arguments) => tidy::run(&arguments),
            Self::Crd(arguments) => crd::run(&arguments),
            Self::Sim(arguments) => sim::run(&arguments),
            Self::Differential(arguments) => differential::run(&arguments),
            Self::Servers(arguments) => servers::run(&arguments),
        }
    }
}
