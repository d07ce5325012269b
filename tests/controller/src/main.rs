//! The operator as a process of its own, for tests that kill it: what `matriarch-operator run` does and nothing else.

use clap::Parser as _;
use operator::config::{Cli, Command};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { command } = Cli::parse();
    let _ = telemetry::init();
    match command {
        Command::Run(args) => operator::run::run(args).await,
    }
}
