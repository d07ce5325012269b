//! Writes rows and keeps its own log of what was acknowledged: the judge of every test that breaks something.
//!
//! Decides what an attempt's outcome is (ok, error, unknown) and what a database must contain afterwards: every ok
//! exactly once, no definite error, unknown either way. Must never count a doubtful answer as ok or as error
//! (`outcome::tests`), and never forget an outcome that it told (`journal` flushes each line).

mod arguments;
mod clock;
mod control;
mod journal;
mod judge;
mod outcome;
mod reader;
mod session;
mod target;
mod tls;
mod writer;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = arguments::Command::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(arguments.run()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
