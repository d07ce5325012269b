//! The modes of the binary.

use anyhow::Context;
use clap::{Parser, Subcommand};
use kubernetes::client::Origin;

use crate::config::{Config, SupervisorConfig};
use crate::{install, run, supervisor};

/// The bot in every PostgreSQL pod.
#[derive(Debug, Parser)]
#[command(name = "matriarch-agent", version)]
pub struct Cli {
    /// In which mode to run.
    #[command(subcommand)]
    pub mode: Mode,
}

/// A mode.
#[derive(Debug, Subcommand)]
pub enum Mode {
    /// Copies the agent into the pod (init container).
    Install(install::Install),
    /// PID 1 of the database's container: runs the agent and PostgreSQL.
    Supervise(SupervisorConfig),
    /// The agent itself; started by the supervisor.
    Run(Box<Config>),
}

impl Cli {
    /// Runs the mode to its end.
    ///
    /// # Errors
    /// What ended it.
    pub fn run(self) -> anyhow::Result<()> {
        match self.mode {
            Mode::Install(install) => {
                telemetry::init()?;
                install::install(&install)
            }
            // PID 1 writes its own log, which never waits for its reader.
            Mode::Supervise(config) => supervisor::run(config).context("cannot supervise"),
            Mode::Run(config) => {
                telemetry::init()?;
                run::run(*config, Origin::InCluster)
            }
        }
    }
}
