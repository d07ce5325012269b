//! Builds the rig's programs from Go modules that are checked in beside this crate, one module per family, so
//! that every version is pinned by a `go.sum`. What was built once is found again by the hash of its module.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Key};
use crate::command;

/// The version that is checked in; every other one is resolved when it is asked for.
pub(crate) const KUBERNETES: &str = "1.36.4";

/// The directories of everything that was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Programs {
    /// `kube`: all of Kubernetes, `kubectl` and the provisioner, by first argument.
    pub(crate) kube: PathBuf,
    /// `etcd`.
    pub(crate) etcd: PathBuf,
    /// The directory of `containerd`, `containerd-shim-runc-v2` and `ctr`.
    pub(crate) containerd: PathBuf,
    /// `helm`.
    pub(crate) helm: PathBuf,
    /// `coredns`.
    pub(crate) coredns: PathBuf,
}

/// One Go module and the programs that come out of it.
struct Family {
    name: &'static str,
    files: Vec<(&'static str, String)>,
    /// File name and package of each program.
    programs: &'static [(&'static str, &'static str)],
    tags: &'static str,
    linker_flags: String,
}

macro_rules! module {
    ($name:literal, $($file:literal),+) => {
        vec![$(($file, include_str!(concat!("../rig/go/", $name, "/", $file)).to_owned())),+]
    };
}

impl Programs {
    /// Builds what is missing, one family after the other: each build uses all processors anyway.
    pub(crate) fn ensure(cache: &Cache, kubernetes: &str) -> Result<Self> {
        let toolchain = command::output(&mut command::command("go", ["env", "GOVERSION"]))
            .context("the rig is built with Go, which must be installed")?;
        let build = |family: &Family| family.ensure(cache, toolchain.trim());
        let kube = build(&kube(kubernetes)?)?.join("kube");
        let etcd = build(&Family {
            name: "etcd",
            files: module!("etcd", "go.mod", "go.sum", "main.go"),
            programs: &[("etcd", ".")],
            tags: "",
            linker_flags: "-s -w".to_owned(),
        })?;
        let containerd = build(&Family {
            name: "containerd",
            files: module!("containerd", "go.mod", "go.sum"),
            programs: &[
                ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
                (
                    "containerd-shim-runc-v2",
                    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                ),
                ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
            ],
            tags: "no_btrfs,no_zfs,no_devmapper",
            linker_flags: "-s -w".to_owned(),
        })?;
        let helm = build(&Family {
            name: "helm",
            files: module!("helm", "go.mod", "go.sum"),
            programs: &[("helm", "helm.sh/helm/v4/cmd/helm")],
            tags: "",
            linker_flags: "-s -w".to_owned(),
        })?;
        let coredns = build(&Family {
            name: "coredns",
            files: module!("coredns", "go.mod", "go.sum"),
            programs: &[("coredns", "github.com/coredns/coredns")],
            tags: "",
            linker_flags: "-s -w".to_owned(),
        })?;
        Ok(Self {
            kube,
            etcd: etcd.join("etcd"),
            containerd,
            helm: helm.join("helm"),
            coredns: coredns.join("coredns"),
        })
    }
}

/// Kubernetes of any version: the checked-in module for the pinned one, otherwise the same module with the
/// version's own list of staging modules, resolved when it is built.
fn kube(version: &str) -> Result<Family> {
    let [major, minor, _patch] = version.split('.').collect::<Vec<_>>()[..] else {
        bail!("a Kubernetes version looks like {KUBERNETES}, not like {version}");
    };
    ensure!(major == "1" && minor.parse::<u32>().is_ok(), "no such Kubernetes version: {version}");
    let mut files = module!("kube", "go.mod", "go.sum", "main.go", "provisioner.go");
    if version != KUBERNETES {
        files.retain(|(name, _)| !name.starts_with("go."));
        files.push(("go.mod", format!("module rig.test/kube\n\n// Kubernetes {version}\n")));
    }
    let mut linker_flags = "-s -w".to_owned();
    // Without these the server calls itself v0.0.0, and Helm refuses charts by their kubeVersion.
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (variable, value) in
            [("gitVersion", format!("v{version}")), ("gitMajor", major.into()), ("gitMinor", minor.into())]
        {
            let _ = write!(linker_flags, " -X {package}.{variable}={value}");
        }
    }
    Ok(Family { name: "kube", files, programs: &[("kube", ".")], tags: "providerless", linker_flags })
}

impl Family {
    fn ensure(&self, cache: &Cache, toolchain: &str) -> Result<PathBuf> {
        let mut key = Key::new("go 1").with(toolchain).with(self.tags).with(&self.linker_flags);
        for (name, text) in &self.files {
            key = key.with(name).with(text);
        }
        cache.ensure("bin", self.name, &key, "", |directory| self.build(directory))
    }

    fn build(&self, directory: &Path) -> Result<()> {
        let source = tempfile::tempdir().context("making a directory for a Go module")?;
        for (name, text) in &self.files {
            fs::write(source.path().join(name), text).with_context(|| format!("writing {name}"))?;
        }
        if !self.files.iter().any(|(name, _)| *name == "go.sum") {
            resolve(source.path(), self.files.iter().find(|(name, _)| *name == "go.mod"))?;
        }
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        for (program, package) in self.programs {
            let mut build = go(source.path(), "readonly");
            build.args(["build", "-v", "-trimpath", "-tags", self.tags, "-ldflags", &self.linker_flags]);
            build.arg("-o").arg(directory.join(program)).arg(package);
            command::run(&format!("build {program}"), build)?;
        }
        Ok(())
    }
}

/// Writes `go.mod` and `go.sum` of a Kubernetes version that is not checked in.
fn resolve(source: &Path, module: Option<&(&'static str, String)>) -> Result<()> {
    let version = module
        .and_then(|(_, text)| text.lines().find_map(|line| line.strip_prefix("// Kubernetes ")))
        .context("a module without go.sum must be Kubernetes")?;
    let mut download = go(source, "mod");
    download.args(["mod", "download", "-json", &format!("k8s.io/kubernetes@v{version}")]);
    let answer: serde_json::Value = serde_json::from_str(&command::output(&mut download)?)
        .context("reading what go mod download says")?;
    let theirs =
        answer.get("GoMod").and_then(serde_json::Value::as_str).context("go mod download names no go.mod")?;
    let theirs = fs::read_to_string(theirs).with_context(|| format!("reading {theirs}"))?;
    let staging = version.replacen("1.", "0.", 1);
    let mut text = format!(
        "module rig.test/kube\n\ngo 1.26.0\n\ngodebug default=go1.26\n\nrequire k8s.io/kubernetes v{version}\n\nreplace (\n"
    );
    for line in theirs.lines() {
        if let Some((module, _)) = line.trim().split_once(" => ./staging/") {
            let _ = writeln!(text, "\t{module} => {module} v{staging}");
        }
    }
    text.push_str(")\n");
    fs::write(source.join("go.mod"), text).context("writing go.mod")?;
    let mut tidy = go(source, "mod");
    tidy.args(["mod", "tidy"]);
    command::run(&format!("resolve the modules of Kubernetes {version}"), tidy)
}

fn go(directory: &Path, mode: &str) -> std::process::Command {
    let mut command = std::process::Command::new("go");
    command
        .current_dir(directory)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", format!("-mod={mode} -buildvcs=false"));
    command
}
