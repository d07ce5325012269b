//! The image of Patroni, with which the benchmarks compare: the root file system that our own members run on, with Python
//! of the same suite and with Patroni in a virtual environment.
//!
//! It decides nothing about how Patroni runs: its configuration comes with the manifests of the end-to-end program. It must
//! never hold what is not pinned: each wheel has a version and a hash in `rig/images/patroni.txt`. Proved by
//! `cargo xtask bench failover --peer patroni`, and by the build itself, which calls the program.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::{self, Config};
use super::debian;
use crate::cache::{Cache, Key};
use crate::{command, packages};

/// Name of the image; its tag is the pinned version.
pub(crate) const REFERENCE: &str = "rig.test/patroni:4.1.5";
/// PostgreSQL's major version, the one that our own clusters have by default.
const MAJOR: u8 = 17;
/// Python of that suite: wheels are for one version.
const PYTHON: &str = "3.13";
/// Where the virtual environment is.
const HOME: &str = "/opt/patroni";
/// What is in it.
const REQUIREMENTS: &str = include_str!("../../rig/images/patroni.txt");

/// The archive, made when it is missing: two minutes.
pub(crate) fn ensure(cache: &Cache) -> Result<PathBuf> {
    let postgres = debian::of_major(MAJOR)?;
    let mut arguments = postgres.arguments(&["python3"]);
    arguments.extend(finishing());
    let config = Config {
        entrypoint: vec![format!("{HOME}/bin/python3"), "-m".to_owned(), "patroni".to_owned()],
        ..postgres.config()
    };
    let key = Key::new("patroni 1")
        .with(arguments.join("\n"))
        .with(REFERENCE)
        .with(PYTHON)
        .with(REQUIREMENTS)
        .with(config.fingerprint());
    cache.ensure("images", "patroni", &key, ".tar", |path| {
        let scratch =
            tempfile::tempdir_in(cache.root()).context("making a directory for a root file system")?;
        let environment = scratch.path().join("patroni");
        install(&environment)?;
        // First, for the hooks that finish it run inside; it is no part of the key, which has what is in it.
        let hook = format!("--customize-hook=copy-in {} /opt", environment.display());
        let at = arguments.len() - finishing().len();
        let mut arguments = arguments.clone();
        arguments.insert(at, hook);
        let layer = scratch.path().join("root.tar");
        postgres.bootstrap(&arguments, &layer)?;
        archive::write(REFERENCE, &config, &layer, path)
    })
}

/// What is done inside: compiled once, as an ordinary installation is, or every start of the peer would be slower than it
/// need be; then the program is called, so that what does not fit together is known here.
fn finishing() -> [String; 2] {
    [
        format!("--customize-hook=chroot \"$1\" {HOME}/bin/python3 -m compileall -q {HOME}/lib"),
        format!("--customize-hook=chroot \"$1\" {HOME}/bin/python3 -m patroni --version"),
    ]
}

/// A virtual environment for Python inside the image, made by the Python of this machine: wheels are only unpacked.
fn install(environment: &Path) -> Result<()> {
    let library = environment.join(format!("lib/python{PYTHON}/site-packages"));
    let programs = environment.join("bin");
    for directory in [&library, &programs] {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    }
    symlink(format!("/usr/bin/python{PYTHON}"), programs.join("python3")).context("linking Python")?;
    let about = format!("home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON}\n");
    fs::write(environment.join("pyvenv.cfg"), about).context("writing pyvenv.cfg")?;
    let requirements = environment.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).context("writing the list of wheels")?;

    let pip = || command::command("python3", ["-m", "pip"]);
    if command::output(pip().arg("--version")).is_err() {
        packages::install(&["python3-pip"])?;
    }
    let mut install: Command = pip();
    install.args(["install", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]);
    install.args(["--no-compile", "--implementation=cp", "--python-version", PYTHON]);
    for platform in ["manylinux2014_x86_64", "manylinux_2_28_x86_64"] {
        install.args(["--platform", platform]);
    }
    install.arg("--target").arg(&library).arg("--requirement").arg(&requirements);
    command::run("fetch Patroni", install)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_pinned_and_the_image_is_called_by_the_version() {
        let lines: Vec<&str> = REQUIREMENTS.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.len() > 5);
        for line in &lines {
            assert!(line.contains("==") && line.contains(" --hash=sha256:"), "{line}");
        }
        let version = REFERENCE.rsplit_once(':').unwrap().1;
        assert!(lines.iter().any(|line| line.starts_with(&format!("patroni=={version} "))));
    }
}
