//! What each layer runs.

use std::process::Command;

use anyhow::{Context, Result};

use super::counts::{self, Counts};
use crate::cache::Cache;
use crate::deploy::{self, Target};
use crate::rig::CONTROLLER;
use crate::this::{self, StartedRig};
use crate::{command, differential, end_to_end, servers, tidy};

/// Seeds of one run in CI; the long forms are for people (`cargo xtask sim`).
const SEEDS: &str = "2000";
/// The same in asynchronous mode, where a lease stands for the quorum.
const ASYNCHRONOUS_SEEDS: &str = "1000";

/// House rules, format, lints and generated files.
pub(super) fn tidy() -> Result<Counts> {
    let mut counts = Counts::default();
    for (rule, outcome) in tidy::house_rules(&this::tree()) {
        let offenders = outcome.with_context(|| rule.to_owned())?;
        for offender in &offenders {
            println!("{rule}: {offender}");
        }
        counts += match offenders.first() {
            None => Counts::passed(),
            Some(offender) => Counts::failed(format!("{rule}: {offender}")),
        };
    }
    counts += step("rustfmt", this::cargo(["fmt", "--all", "--check"]));
    counts += step("clippy", tidy::clippy());
    counts += step("generated definitions", this::xtask(["crd", "--check"])?);
    Ok(counts)
}

/// Everything that needs no server.
pub(super) fn unit() -> Result<Counts> {
    let mut counts = counts::tests(this::cargo([
        "test",
        "--workspace",
        "--locked",
        "--no-fail-fast",
        "--exclude",
        "matriarch-postgres",
        "--exclude",
        "matriarch-controller",
        "--exclude",
        "matriarch-differential",
    ]))?;
    counts +=
        counts::tests(this::cargo(["test", "--package", "matriarch-differential", "--locked", "--lib"]))?;
    counts += counts::tests(this::cargo(["test", "--package", "matriarch-postgres", "--locked", "--lib"]))?;
    Ok(counts)
}

/// The protocol: seeds without a violation, every rule missed by somebody, every state of small electorates. Then the generic
/// leader election, likewise.
pub(super) fn sim() -> Result<Counts> {
    let runs: [&[&str]; 9] = [
        &["--seeds", SEEDS],
        &["--asynchronous", "--seeds", ASYNCHRONOUS_SEEDS],
        &["--mutations"],
        &["--mutations", "--check"],
        &["--exhaustive"],
        &["--exhaustive", "--mutations"],
        &["--elector", "--seeds", SEEDS],
        &["--elector", "--mutations"],
        &["--elector", "--third-party"],
    ];
    let mut counts = Counts::default();
    for run in runs {
        let mut simulator = this::xtask(["sim"])?;
        simulator.args(run);
        counts += step_shown(simulator);
    }
    Ok(counts)
}

/// How many tests of real servers run at once: they wait more than they compute.
const SERVER_TESTS: &str = "4";

/// Facts about PostgreSQL and every step of the adapter, on servers of every supported major version.
pub(super) fn postgres() -> Result<Counts> {
    let mut counts = Counts::default();
    for servers in servers::ensure()? {
        println!("== PostgreSQL {}", servers.major);
        let mut tests =
            this::cargo(["test", "--package", "matriarch-postgres", "--locked", "--no-fail-fast"]);
        tests.args(["--test", "*", "--config", &servers.cargo_runner()?]);
        tests.env("RUST_TEST_THREADS", SERVER_TESTS);
        counts += counts::tests(tests)?;
        counts += counts::tests(differential::command(&servers, &[])?)?;
        if servers.major == DRIVER_MAJOR {
            let mut judge = this::cargo(["test", "--package", "matriarch-client", "--locked", "--bins"]);
            judge.args(["--config", &servers.cargo_runner()?, "real::"]);
            counts += counts::tests(judge)?;
        }
    }
    Ok(counts)
}

/// The major version on which the agent is ended in CI, in the long form on every one; and on which the clients' judge is
/// shown what it must find.
const DRIVER_MAJOR: u8 = 17;

/// Supervisors and agents on real servers beside an API server of the test's own: the agent is ended after some of its
/// steps in each story, or after every one and on every major.
pub(super) fn driver(all: bool) -> Result<Counts> {
    let mut counts = Counts::default();
    for servers in servers::ensure()? {
        if !all && servers.major != DRIVER_MAJOR {
            continue;
        }
        println!("== PostgreSQL {}", servers.major);
        let mut tests = this::cargo(["run", "--package", "matriarch-driver", "--locked", "--quiet"]);
        tests.args(["--config", &servers.cargo_runner()?, "--"]);
        if all {
            tests.arg("--all");
        }
        counts += counts::tests(tests)?;
    }
    Ok(counts)
}

/// The operator against etcd, API server and controller manager alone, beside any other rig.
pub(super) fn controller(names: &[String]) -> Result<Counts> {
    let _rig = StartedRig::unless_running(Some(CONTROLLER), &["--nodes", "0"])?;
    let home = Cache::open()?.path(CONTROLLER);
    let mut tests = this::cargo([
        "test",
        "--package",
        "matriarch-controller",
        "--locked",
        "--no-fail-fast",
        "--test",
        "*",
        "--",
        "--test-threads=6",
    ]);
    tests
        .args(names)
        .env("MATRIARCH_CONTROLLER_KUBECONFIG", home.join("kubeconfig"))
        .env("MATRIARCH_HELM", home.join("bin/helm"));
    counts::tests(tests)
}

/// The charts: lint, what they render with every switch on and off, and which values they refuse.
pub(super) fn chart() -> Result<Counts> {
    let mut counts = Counts::default();
    for chart in deploy::CHARTS {
        let directory = this::tree().join("charts").join(chart);
        let mut lint = Target::Rig.helm(["lint", "--strict"])?;
        lint.arg(&directory);
        counts += step(&format!("helm lint {chart}"), lint);
        for (what, values) in deploy::variants(chart)? {
            let mut template = Target::Rig.helm(["template", "test", "--namespace", "test"])?;
            template.arg(&directory).args(values);
            let rendered = command::output(&mut template);
            counts += match rendered {
                Ok(text) if !text.contains("kind:") => {
                    failed(format!("helm template {chart} {what}: renders nothing"))
                }
                Ok(text) => {
                    let wrong = match what.as_str() {
                        "as it is" if chart == "matriarch-operator" => super::chart::lacks(&text),
                        "namespaced-values.yaml" => super::chart::cluster_wide(&text),
                        _ => Vec::new(),
                    };
                    if wrong.is_empty() {
                        Counts::passed()
                    } else {
                        failed(format!("helm template {chart} {what}: {}", wrong.join(", ")))
                    }
                }
                Err(error) => failed(format!("helm template {chart} {what}: {error:#}")),
            };
        }
    }
    for (value, why) in super::chart::REFUSED {
        let mut template = Target::Rig.helm(["template", "test", "--set", value])?;
        template.arg(this::tree().join("charts/matriarch-operator"));
        counts += match command::output(&mut template) {
            Err(error) if format!("{error:#}").contains("schema") => Counts::passed(),
            Err(error) => {
                failed(format!("helm template --set {value}: refused, but not by the schema: {error:#}"))
            }
            Ok(_) => failed(format!("helm template --set {value}: accepted, {why}")),
        };
    }
    Ok(counts)
}

/// The end-to-end scenarios, on a rig with this tree's images and charts.
pub(super) fn e2e(names: &[String], all: bool, keep: bool) -> Result<Counts> {
    let mut tests = end_to_end::program()?;
    tests.args(names);
    if all {
        tests.arg("--all");
    }
    if keep {
        tests.arg("--keep");
    }
    counts::tests(tests)
}

/// Starts the rig for the layers that need it.
pub(super) fn rig() -> Result<Option<StartedRig>> {
    StartedRig::unless_running(None, &[])
}

/// One check that is a program.
fn step(label: &str, program: Command) -> Counts {
    match command::run(label, program) {
        Ok(()) => Counts::passed(),
        Err(error) => failed(format!("{error:#}")),
    }
}

/// Told at once, and at the end.
fn failed(told: String) -> Counts {
    println!("{told}");
    Counts::failed(told)
}

/// The same for a program whose output is its report.
fn step_shown(mut program: Command) -> Counts {
    match program.status() {
        Ok(status) if status.success() => Counts::passed(),
        outcome => failed(format!("{}: {outcome:?}", command::describe(&program))),
    }
}
