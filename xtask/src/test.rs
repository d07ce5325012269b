//! Every layer of tests, or one of them; the last line says how many passed and how many failed.
//!
//! `cargo xtask test` is what CI runs. A rig that it started it takes down again, however it ends.

mod chart;
mod counts;
mod layers;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;

use counts::Counts;

/// Runs tests.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this layer.
    #[arg(value_enum)]
    layer: Option<Layer>,
    /// For `e2e` and `controller`: only what has one of these in its name.
    names: Vec<String>,
    /// For `e2e`: also those that take too long for CI. For `driver`: after every step, on every major
    /// version of PostgreSQL.
    #[arg(long)]
    all: bool,
    /// For `e2e`: stop at the first failure and leave everything as it is, the rig too.
    #[arg(long)]
    keep: bool,
}

/// A layer; they run in this order, quick ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layer {
    /// House rules, format, lints, generated files.
    Tidy,
    /// Everything that needs no server.
    Unit,
    /// The protocol under simulation.
    Sim,
    /// Facts about PostgreSQL on servers of their own.
    Postgres,
    /// The agent ended after each of its steps, on servers of its own.
    Driver,
    /// The operator against an API server without nodes.
    Controller,
    /// The charts.
    Chart,
    /// Scenarios on a real Kubernetes.
    E2e,
}

impl Layer {
    fn needs_rig(self) -> bool {
        matches!(self, Self::Chart | Self::E2e)
    }

    fn run(self, arguments: &Arguments) -> Result<Counts> {
        match self {
            Self::Tidy => layers::tidy(),
            Self::Unit => layers::unit(),
            Self::Sim => layers::sim(),
            Self::Postgres => layers::postgres(),
            Self::Driver => layers::driver(arguments.all),
            Self::Controller => layers::controller(&arguments.names),
            Self::Chart => layers::chart(),
            Self::E2e => layers::e2e(&arguments.names, arguments.all, arguments.keep),
        }
    }
}

/// Runs the layers and prints each one's time and the closing line.
#[expect(clippy::unnecessary_wraps, reason = "every subcommand has this form")]
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let chosen: Vec<Layer> = match arguments.layer {
        Some(layer) => vec![layer],
        None => Layer::value_variants().to_vec(),
    };
    let mut total = Counts::default();
    let (mut lines, mut failures) = (Vec::new(), Vec::new());
    let mut rig = None;
    for layer in chosen {
        let name = layer.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        println!("==== {name}");
        let started = Instant::now();
        let ready = if layer.needs_rig() && rig.is_none() {
            layers::rig().map(|started| rig = started)
        } else {
            Ok(())
        };
        // A layer that cannot even start is a failure of its own; the others still run.
        let counts = ready.and_then(|()| layer.run(arguments)).unwrap_or_else(|error| {
            println!("{name}: {error:#}");
            Counts::failed(format!("{error:#}"))
        });
        let line = format!("{name:<10} {:>7.1} s  {counts}", started.elapsed().as_secs_f64());
        println!("---- {line}");
        lines.push(line);
        failures.extend(counts.failures.iter().map(|told| format!("{name}: {told}")));
        total += counts;
    }
    match rig {
        Some(rig) if arguments.keep && total.failed > 0 => rig.keep(),
        other => drop(other),
    }
    println!("====");
    for line in lines {
        println!("{line}");
    }
    for failure in failures {
        println!("{failure}");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 && total.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
