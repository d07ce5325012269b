//! The sidecar: leader election for an application that only speaks HTTP, or that only has to be started and stopped.
//!
//! [`options`] is what it is told, [`http`] what it tells; the duties ([`label`], [`service`], [`hooks`], [`command`]) are
//! what it does for the application while it leads. Each holds a [`crate::Lead`] until its own work has ended, so that the
//! Lease is not released before.

pub mod answer;
pub mod clients;
pub mod command;
pub mod hooks;
pub mod http;
pub mod label;
pub mod metrics;
pub mod options;
pub mod run;
pub mod service;
pub mod ward;

use std::process::ExitCode;

/// The program: a ward or a command when the command line says so, else the sidecar, until it ends.
pub fn main() -> ExitCode {
    if let Some(code) = ward::main() {
        return code;
    }
    let options = options::Options::read();
    if telemetry::init().is_err() {
        eprintln!("a log subscriber is already installed");
    }
    // One thread: it waits more than it works, and has a container of its own to be small in.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run::run(options)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", telemetry::report(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
