//! Writes the custom resource definitions that `crates/api` generates to `crds/` and into the chart that installs them.

use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{command, this};

/// Where copies of the generated text are kept.
const COPIES: [&str; 2] = ["crds/postgresclusters.yaml", "charts/matriarch-crds/files/postgresclusters.yaml"];

/// Generates the custom resource definitions.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Changes nothing; fails when a checked-in file is not the generated one.
    #[arg(long)]
    check: bool,
}

/// Writes or checks.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut generator = this::cargo(["run", "--quiet", "--locked", "--package", "matriarch-api"]);
    let text = command::output(generator.stderr(Stdio::inherit())).context("generating the definitions")?;
    ensure!(text.contains("kind: CustomResourceDefinition"), "the generator printed no definition");
    let mut stale = Vec::new();
    for path in COPIES.map(|file| this::tree().join(file)) {
        if std::fs::read_to_string(&path).unwrap_or_default() == text {
            continue;
        }
        if arguments.check {
            stale.push(path.display().to_string());
            continue;
        }
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("creating {}", directory.display()))?;
        }
        std::fs::write(&path, &text).with_context(|| format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    if !stale.is_empty() {
        bail!("out of date, run `cargo xtask crd`: {}", stale.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
