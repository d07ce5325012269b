//! The Debian packages that the rig and the images need. Missing ones are installed, present ones are left
//! as they are.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command;

/// Everything that building images and running the rig calls by name.
const NEEDED: [&str; 13] = [
    "ca-certificates",
    "conntrack",
    "containernetworking-plugins",
    "coreutils",
    "debian-archive-keyring",
    "gcc",
    "iproute2",
    "iptables",
    "libc6-dev",
    "mmdebstrap",
    "musl-tools",
    "runc",
    "util-linux",
];

/// Installs what is missing. Needs root, as does everything that follows.
pub(crate) fn ensure_installed() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the rig needs root: it makes namespaces, mounts and cgroups"
    );
    install(&NEEDED)
}

/// Installs those of these packages that are missing, for what few people need.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(", ");
    command::run("refresh the list of Debian packages", command::command("apt-get", ["update", "-q"]))?;
    let mut install = command::command("apt-get", ["install", "-y", "-q", "--no-install-recommends"]);
    install.args(&missing).env("DEBIAN_FRONTEND", "noninteractive");
    command::run(&format!("install {list}"), install).context("installing Debian packages")
}

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    command::output(&mut query).is_ok_and(|status| status == "installed")
}
