//! `matriarch-model`: searches every state within a bound.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use model::{Bound, check};

/// Checks the protocol exhaustively within a bound.
#[derive(Parser)]
struct Arguments {
    /// Which bound.
    #[arg(long, default_value = "two")]
    bound: String,
    /// Give up after so many steps.
    #[arg(long)]
    most: Option<usize>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let bound = Bound::named(&arguments.bound).context("no such bound")?;
    let verdict = check(bound, arguments.most);
    println!("{verdict:#?}");
    Ok(if verdict.broken.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
