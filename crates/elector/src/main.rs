//! `matriarch-elector`.

use std::process::ExitCode;

use elector::sidecar::{options::Options, run, ward};

fn main() -> ExitCode {
    if let Some(code) = ward::main() {
        return code;
    }
    let options = Options::read();
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
