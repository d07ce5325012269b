//! `bench scale`: the operator's own static program against a control plane without nodes.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::images;
use crate::rig::CONTROLLER;
use crate::this::{self, StartedRig};

/// Starts the control plane unless it runs, and measures. A series goes on where it was left.
///
/// # Errors
/// When something of that cannot be started.
pub(super) fn run(arguments: &[String]) -> Result<ExitCode> {
    let only_told = arguments.iter().any(|it| ["--table", "--help", "-h"].contains(&it.as_str()));
    let programs = images::programs("release", &["matriarch-bench"])?;
    let mut program = Command::new(programs.join("matriarch-bench"));
    program.current_dir(this::tree()).arg("scale").args(arguments);
    if only_told {
        return ended(program);
    }
    let _rig = StartedRig::unless_running(Some(CONTROLLER), &["--nodes", "0"])?;
    let home = Cache::open()?.path(CONTROLLER);
    program
        .env("MATRIARCH_OPERATOR", programs.join("matriarch-operator"))
        .env("MATRIARCH_CONTROLLER_KUBECONFIG", home.join("kubeconfig"))
        .env("MATRIARCH_HELM", home.join("bin/helm"));
    ended(program)
}

fn ended(mut program: Command) -> Result<ExitCode> {
    let status = program.status().context("running the measurement")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
