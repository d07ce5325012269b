//! The simulator of the protocol as a program.

mod cli;

fn main() -> anyhow::Result<()> {
    cli::run_task()
}
