//! The simulator of the generic leader election as a program.

mod cli;

fn main() -> anyhow::Result<()> {
    cli::run_task()
}
