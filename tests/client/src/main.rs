//! Writes rows and keeps its own log of what was acknowledged: the judge of every test that breaks something.
//!
//! Decides what an attempt's outcome is (ok, error, unknown) and what a database must contain afterwards: every ok
//! exactly once, no definite error, unknown either way. Must never count a doubtful answer as ok or as error
//! (`outcome::tests`, `real`), and never forget an outcome that it told (`journal` flushes each line).

mod arguments;
mod attempt;
mod clock;
mod control;
mod journal;
mod observer;
mod outcome;
mod reader;
#[cfg(test)]
mod real;
mod report;
mod session;
mod verdict;
mod workload;
mod writer;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let command = arguments::Command::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(command.run()));
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
