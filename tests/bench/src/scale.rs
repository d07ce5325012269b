//! What the operator takes with 1, 20, 200 clusters, and how soon an edit has its effect.
//!
//! A real etcd, API server and controller manager without nodes; the operator is the product's own static program, as the
//! chart would start it, with the rights that the chart gives it and no other. Members are stand-ins that speak the agents'
//! part: [`stand_ins`]. Measured for each repetition, on an operator that was started anew: from its start to its
//! leadership and to the last object of the last cluster applied; memory, computing time and requests while nothing
//! happens (every Lease is renewed each ten seconds all the same); then one edit of a parameter after another, each from
//! right before it is sent until the ConfigMap that agents follow has it.
//!
//! Targets: below 60 MiB resident with 200 clusters, an edit taken up within one second there.

mod edits;
mod operator;
mod repetition;
mod stand_ins;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use controller::world::World;
use kube::Api;
use kube::api::ListParams;

use crate::lines::Lines;
use operator::Installed;
use repetition::Line;
use stand_ins::StandIns;

/// What is to be measured.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// How many clusters, in growing numbers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 20, 200], value_parser = clap::value_parser!(u32).range(1..=2000))]
    clusters: Vec<u32>,
    /// How many repetitions of each, every one with an operator that was started anew.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    reps: u32,
    /// How many edits each repetition makes.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    edits: u32,
    /// For how many seconds nothing happens. Every ten minutes the operator looks at each cluster unasked: with 660 that
    /// is part of it.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=7200))]
    rest: u64,
    /// Members of each cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    instances: u32,
    /// Where the JSON lines are appended.
    #[arg(long, default_value = "scale.jsonl")]
    out: PathBuf,
    /// Prints the table of what is in the file, and measures nothing.
    #[arg(long)]
    table: bool,
    /// The operator's program.
    #[arg(long, env = "MATRIARCH_OPERATOR", hide = true)]
    operator: Option<PathBuf>,
}

/// Measures, then prints the table of the whole file.
///
/// # Errors
/// When something cannot be measured.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.table {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.context("start the runtime")?.block_on(measure(arguments))?;
    }
    println!("{}", table::table(&Lines::open(&arguments.out)?.read()?));
    Ok(())
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let mut lines = Lines::open(&arguments.out)?;
    let known: Vec<Line> = lines.read()?;
    let missing = |clusters: u32| {
        let alike = |line: &&Line| {
            (line.clusters, line.instances, line.rest_seconds)
                == (clusters, arguments.instances, arguments.rest)
        };
        arguments.reps.saturating_sub(u32::try_from(known.iter().filter(alike).count()).unwrap_or(u32::MAX))
    };
    let mut sizes = arguments.clusters.clone();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.retain(|size| missing(*size) > 0);
    if sizes.is_empty() {
        return Ok(());
    }
    let program =
        arguments.operator.as_deref().context("which operator? `cargo xtask bench scale` says it")?;
    let program = std::path::absolute(program).context("where this is")?;
    // Definitions and charts are found from a package's directory.
    std::env::set_current_dir("tests/bench").context("this is not the root of the tree")?;
    let world = World::new("scale").await;
    alone(&world).await?;
    let installed = Installed::new(&world, &program).await?;
    let mut stand_ins = StandIns::new(&world, arguments.instances);
    for size in sizes {
        grow(&installed, &mut stand_ins, size).await?;
        for rep in 0..missing(size) {
            let rest = Duration::from_secs(arguments.rest);
            let line = repetition::once(&installed, &world, &stand_ins, rest, arguments.edits).await?;
            println!("{:>5} clusters, {:>2}: {}", size, rep + 1, line.told());
            lines.append(&line)?;
        }
    }
    Ok(())
}

/// Brings so many clusters into being, with an operator of its own.
async fn grow(installed: &Installed, stand_ins: &mut StandIns, size: u32) -> Result<()> {
    let operator = installed.start()?;
    operator.leads().await?;
    let outcome = stand_ins.grow_to(size).await;
    outcome.with_context(|| format!("the operator said last:\n{}", operator.said()))?;
    operator.end().await
}

/// The operator looks after every namespace, so nobody else's clusters may be there.
async fn alone(world: &World) -> Result<()> {
    let all = Api::<api::PostgresCluster>::all(world.calls.client().clone());
    let there = all.list(&ListParams::default()).await.context("list clusters")?;
    ensure!(there.items.is_empty(), "there are clusters already; take the rig down first");
    Ok(())
}

/// Bytes of a program say which build was measured.
fn size_of(program: &Path) -> u64 {
    std::fs::metadata(program).map(|it| it.len()).unwrap_or_default()
}
