//! `matriarch-operator`.

use clap::Parser as _;
use operator::config::{Cli, Command};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let Cli { command } = Cli::parse();
    if telemetry::init().is_err() {
        eprintln!("a log subscriber is already installed");
    }
    let ended = match command {
        Command::Run(args) => operator::run::run(args).await,
    };
    match ended {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = telemetry::report(error.as_ref()), "ended");
            std::process::ExitCode::FAILURE
        }
    }
}
