//! Installs the charts of this tree, as a user would, on the rig or on a cluster of one's own.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{command, this};

/// The charts.
pub(crate) const CHARTS: [&str; 2] = ["matriarch-crds", "matriarch-operator"];
/// The chart that brings the other along.
const OPERATOR: &str = "matriarch-operator";
/// The release's name, as the chart's own instructions have it.
pub(crate) const RELEASE: &str = "matriarch";
/// Where the operator runs.
pub(crate) const NAMESPACE: &str = "matriarch";

/// Which cluster.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The rig, with its own programs.
    Rig,
    /// Another one, with the programs of the user.
    Own(PathBuf),
}

impl Target {
    /// kubectl for it.
    pub(crate) fn kubectl<const N: usize>(&self, arguments: [&str; N]) -> Result<Command> {
        self.program("kubectl", arguments)
    }

    /// Helm for it.
    pub(crate) fn helm<const N: usize>(&self, arguments: [&str; N]) -> Result<Command> {
        self.program("helm", arguments)
    }

    fn program<const N: usize>(&self, program: &str, arguments: [&str; N]) -> Result<Command> {
        let mut command = match self {
            Self::Rig => this::xtask(["rig", program])?,
            Self::Own(kubeconfig) => {
                let mut command = Command::new(program);
                command.env("KUBECONFIG", kubeconfig);
                command
            }
        };
        command.args(arguments);
        Ok(command)
    }
}

/// What is installed.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Image of the operator and the agent, with its tag.
    pub(crate) image: String,
    /// Images of PostgreSQL by major version.
    pub(crate) postgres: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            image: "rig.test/matriarch:dev".to_owned(),
            postgres: ["15", "17", "18"]
                .into_iter()
                .map(|major| (major.to_owned(), format!("rig.test/pg:{major}")))
                .collect(),
        }
    }
}

/// Installs the operator on the rig.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// The subcommand.
pub(crate) fn command(_: &Arguments) -> Result<ExitCode> {
    run(&Target::Rig, &Options::default())?;
    Ok(ExitCode::SUCCESS)
}

/// Installs or upgrades the operator with its definitions and waits until it is there.
///
/// Definitions that somebody else installed are left alone: removing or adopting them could end clusters that are not ours.
pub(crate) fn run(target: &Target, options: &Options) -> Result<()> {
    refuse_foreign_definitions(target)?;
    let values = tempfile::NamedTempFile::new().context("making a file for the chart's values")?;
    std::fs::write(values.path(), values_of(options).to_string()).context("writing the chart's values")?;
    let mut helm = target.helm(["upgrade", "--install", RELEASE])?;
    helm.arg(this::tree().join("charts").join(OPERATOR));
    helm.args(["--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "180s", "--values"]);
    command::run("helm upgrade --install matriarch", {
        helm.arg(values.path());
        helm
    })?;
    // The tag is the same after every build, so that nothing else tells the Deployment of a new one.
    let restart =
        ["rollout", "restart", "deployment", "--selector", "app.kubernetes.io/name=matriarch-operator"];
    let mut restart = target.kubectl(restart)?;
    command::output(restart.args(["--namespace", NAMESPACE])).context("restarting the operator")?;
    let status =
        ["rollout", "status", "deployment", "--selector", "app.kubernetes.io/name=matriarch-operator"];
    let mut status = target.kubectl(status)?;
    status.args(["--namespace", NAMESPACE, "--timeout", "120s"]);
    command::run("wait for the operator", status)
}

/// Fails when the definitions are there and not of our release; says which clusters rest on them.
fn refuse_foreign_definitions(target: &Target) -> Result<()> {
    const NAME: &str = "postgresclusters.matriarch.dev";
    let mut get =
        target.kubectl(["get", "customresourcedefinition", NAME, "--ignore-not-found", "--output=json"])?;
    let text = command::output(&mut get).context("asking for the definitions")?;
    if text.trim().is_empty() {
        return Ok(());
    }
    let definition: Value = serde_json::from_str(&text).context("reading the definitions")?;
    if definition["metadata"]["annotations"]["meta.helm.sh/release-name"] == RELEASE {
        return Ok(());
    }
    let clusters = command::output(&mut target.kubectl(["get", "postgresclusters", "--all-namespaces"])?)?;
    bail!(
        "{NAME} was installed by somebody else and is left as it is; deleting it would delete every cluster.\n\
         Clusters that rest on it:\n{clusters}"
    )
}

/// The values of the operator's chart.
fn values_of(options: &Options) -> Value {
    let (repository, tag) = options.image.rsplit_once(':').unwrap_or((&options.image, "latest"));
    let postgres: serde_json::Map<String, Value> =
        options.postgres.iter().map(|(major, image)| (major.clone(), Value::String(image.clone()))).collect();
    json!({
        "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
        "postgresImages": postgres,
        "defaultMajor": 17,
    })
}

/// Ways to render a chart that must all work: a name and arguments.
pub(crate) fn variants(chart: &str) -> Result<Vec<(String, Vec<std::ffi::OsString>)>> {
    let mut variants = vec![("as it is".to_owned(), Vec::new())];
    let directory = this::tree().join("charts").join(chart).join("ci");
    if directory.exists() {
        for entry in std::fs::read_dir(&directory).context("listing a chart's variants")? {
            let path = entry.context("listing a chart's variants")?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            variants.push((name, vec!["--values".into(), path.into()]));
        }
    }
    Ok(variants)
}
