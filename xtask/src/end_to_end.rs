//! The program of the end-to-end tests and benchmarks, with everything in place that it needs on a running rig.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::deploy::{self, Target};
use crate::{command, this};

/// Builds it, loads this tree's images into the rig, installs this tree's charts.
///
/// # Errors
/// When any of that fails, for instance without a rig.
pub(crate) fn program() -> Result<Command> {
    let mut build = this::cargo(["build", "--locked", "--package", "matriarch-e2e"]);
    build.arg("--quiet");
    command::run("build the end-to-end tests", build)?;
    command::run("build the images and load them", this::xtask(["images", "load"])?)?;
    deploy::run(&Target::Rig, &deploy::Options::default())?;
    let mut program = Command::new(target_directory()?.join("debug/matriarch-e2e"));
    program
        .current_dir(this::tree())
        .env("MATRIARCH_XTASK", std::env::current_exe().context("finding this program")?)
        .env_remove("KUBECONFIG");
    Ok(program)
}

fn target_directory() -> Result<PathBuf> {
    let text =
        command::output(&mut this::cargo(["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&text).context("reading what cargo metadata says")?;
    let directory =
        metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(directory))
}
