//! Runs scenarios one after another, mends what they broke, and says how it went.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::scenarios::{SCENARIOS, Scenario};
use crate::world::World;
use crate::{bench, diagnose, faults};

/// No scenario may take longer, whatever it waits for.
const LIMIT: Duration = Duration::from_secs(900);

/// End-to-end tests on a real Kubernetes.
#[derive(Parser)]
#[command(name = "matriarch-e2e", args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,
    /// Only scenarios whose name contains one of these.
    names: Vec<String>,
    /// Says which there are.
    #[arg(long)]
    list: bool,
    /// Those too that take too long for CI.
    #[arg(long)]
    all: bool,
    /// The cluster; the rig's when left out.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Image of the test client.
    #[arg(long, env = "MATRIARCH_CLIENT_IMAGE", default_value = "rig.test/matriarch-client:dev")]
    client_image: String,
    /// Leaves the namespaces of failed scenarios as they are, and stops at the first failure.
    #[arg(long)]
    keep: bool,
    /// Runs what was chosen so many times: what happens once in ten is a bug, too.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
}

/// What else can be done with a cluster that has faults.
#[derive(clap::Subcommand)]
enum Task {
    /// Measures how long clients cannot write when the master fails.
    Failover(bench::Arguments),
}

/// Runs what was asked for.
pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        for scenario in SCENARIOS {
            println!("{:<20} {}", scenario.name, scenario.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Task::Failover(what)) = &arguments.task {
        if bench::only_tells(what) {
            return bench::tell(what).map(|()| ExitCode::SUCCESS);
        }
        let world = World::open(arguments.kubeconfig.as_ref(), arguments.client_image.clone()).await?;
        let outcome = tokio::select! {
            outcome = bench::run(&world, what) => outcome,
            signal = interrupted() => Err(anyhow::anyhow!("ended by {signal}; what was measured is in the file")),
        };
        if let Err(error) = faults::mend(&world).await {
            eprintln!("error: mending: {error:#}");
        }
        for namespace in world.namespaces() {
            if let Err(error) = world.remove_namespace(&namespace).await {
                eprintln!("error: removing {namespace}: {error:#}");
            }
        }
        return outcome.map(|()| ExitCode::SUCCESS);
    }
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(|scenario| is_chosen(arguments, scenario)).collect();
    if chosen.is_empty() {
        bail!("no scenario is called {:?}; --list shows them", arguments.names);
    }
    let world = World::open(arguments.kubeconfig.as_ref(), arguments.client_image.clone()).await?;
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let rounds = usize::try_from(arguments.repeat)?;
    for scenario in std::iter::repeat_n(&chosen, rounds).flatten() {
        if scenario.needs_rig && !world.has_rig() {
            println!("SKIP  {:<20} needs the rig", scenario.name);
            skipped += 1;
            continue;
        }
        println!("RUN   {:<20} {}", scenario.name, scenario.about);
        let start = Instant::now();
        let outcome = match tokio::time::timeout(LIMIT, (scenario.run)(&world)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!("not finished within {LIMIT:?}")),
        };
        let seconds = start.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                println!("OK    {:<20} {seconds:.1} s", scenario.name);
                passed += 1;
                faults::mend(&world).await?;
                for when in world.to_explain.take() {
                    diagnose::explain(&world, &when).await;
                }
            }
            Err(error) => {
                println!("FAIL  {:<20} {seconds:.1} s: {error:#}", scenario.name);
                failed += 1;
                // The API server first, or nothing can be shown.
                if let Err(error) = faults::mend(&world).await {
                    println!("      and mending failed: {error:#}");
                }
                diagnose::dump(&world).await;
                if arguments.keep {
                    break;
                }
                if let Err(error) = world.discard_shared().await {
                    println!("      and removing the shared cluster failed: {error:#}");
                }
            }
        }
    }
    if !(arguments.keep && failed > 0) {
        for namespace in world.namespaces() {
            if let Err(error) = world.remove_namespace(&namespace).await {
                println!("      removing {namespace}: {error:#}");
            }
        }
    }
    if skipped > 0 {
        println!("{passed} passed, {failed} failed, {skipped} skipped");
    } else {
        println!("{passed} passed, {failed} failed");
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits for the signals that end a program: whoever ends a series must not leave a node without power.
async fn interrupted() -> &'static str {
    let wait = async |kind| match signal(kind) {
        Ok(mut signals) => signals.recv().await,
        // Then it ends as programs do by default.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        _ = wait(SignalKind::interrupt()) => "SIGINT",
        _ = wait(SignalKind::terminate()) => "SIGTERM",
    }
}

fn is_chosen(arguments: &Arguments, scenario: &Scenario) -> bool {
    if arguments.names.is_empty() {
        return arguments.all || scenario.in_ci;
    }
    arguments.names.iter().any(|name| scenario.name.contains(name.as_str()))
}
