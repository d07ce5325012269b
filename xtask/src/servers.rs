//! PostgreSQL servers of every supported major for tests, on a machine that has none of them or only one.
//!
//! The root file systems are those of the images, unpacked once. A test program runs *inside* one: in namespaces of its
//! own (mounts, processes, network, IPC), as the image's `postgres` user, since PostgreSQL refuses to run as root. When
//! it ends, the kernel takes every process and mount along; nothing is ever mounted where others see it. The programs
//! are the packages' own, unpatched, with their own libraries, time zones and locales.
//!
//! The test program itself is built on this machine and needs a C library that is no older in the image than here: true
//! for Debian 12, the oldest that is supported.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind_recursive, unmount};
use rustix::process::{WaitOptions, pivot_root};

use crate::cache::{Cache, Key};
use crate::{command, images, packages};

/// The number of the images' `postgres` user and group.
const POSTGRES: u32 = 999;

/// The variable that tells the tests which servers to use: directories of programs, separated as in `PATH`.
const VARIABLE: &str = "MATRIARCH_POSTGRES";

/// What does not matter for tests and takes most of the space, and devices, which a root file system gets by a mount.
const LEFT_OUT: [&str; 4] = ["./dev/*", "*/libLLVM*", "*/llvmjit*", "./var/lib/apt/*"];

/// One major's root file system.
pub(crate) struct Servers {
    /// The major version.
    pub(crate) major: u8,
    root: PathBuf,
}

/// Every supported major, oldest first; images and root file systems are made when they are missing, which takes about
/// a minute each.
pub(crate) fn ensure() -> Result<Vec<Servers>> {
    packages::ensure_installed()?;
    let cache = Cache::open()?;
    let mut servers = Vec::new();
    for (major, archive) in images::postgres(&cache)? {
        // The archive's name holds the hash of what it was made from.
        let key = Key::new("servers 1").with(archive.to_string_lossy().as_bytes());
        let root =
            cache.ensure("servers", &major.to_string(), &key, "", |root| unpack(major, &archive, root))?;
        servers.push(Servers { major, root });
    }
    Ok(servers)
}

impl Servers {
    /// The option that makes cargo run test programs inside.
    pub(crate) fn cargo_runner(&self) -> Result<String> {
        let own = std::env::current_exe().context("finding this program")?;
        let major = self.major.to_string();
        let words = [
            Path::new("unshare"),
            Path::new("--mount"),
            Path::new("--pid"),
            Path::new("--net"),
            Path::new("--ipc"),
            Path::new("--fork"),
            Path::new("--kill-child=SIGKILL"),
            Path::new("--"),
            &own,
            Path::new("servers"),
            Path::new(&major),
            &self.root,
        ];
        let words = words.map(|word| serde_json::to_string(&word.to_string_lossy()));
        let words = words.into_iter().collect::<Result<Vec<_>, _>>().context("quoting a runner")?;
        Ok(format!("target.'cfg(unix)'.runner=[{}]", words.join(",")))
    }
}

/// The only layer of an image, unpacked.
fn unpack(major: u8, archive: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(root).with_context(|| format!("creating {}", root.display()))?;
    let mut outer = Command::new("tar");
    outer.args(["--extract", "--to-stdout", "--wildcards", "*/layer.tar", "--file"]).arg(archive);
    let mut outer = outer.stdout(Stdio::piped()).spawn().context("starting tar")?;
    let mut inner = Command::new("tar");
    inner.args(["--extract", "--same-permissions", "--numeric-owner", "--file=-", "--directory"]).arg(root);
    inner.args(LEFT_OUT.map(|pattern| format!("--exclude={pattern}")));
    inner.stdin(outer.stdout.take().context("tar has no output")?);
    eprintln!("… unpack the servers of PostgreSQL {major}");
    let unpacked = inner.status().context("starting tar")?;
    let read = outer.wait().context("waiting for tar")?;
    ensure!(unpacked.success() && read.success(), "cannot unpack {}", archive.display());
    let server = root.join(format!("usr/lib/postgresql/{major}/bin/postgres"));
    ensure!(server.exists(), "there is no {} in the image", server.display());
    Ok(())
}

/// Runs a program inside a root file system, as the first process of new namespaces.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    major: u8,
    root: PathBuf,
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Mounts what a program needs, goes inside, and buries every orphan until the program has ended.
pub(crate) fn run(inside: &Arguments) -> Result<ExitCode> {
    ensure!(std::process::id() == 1, "only the first process of new namespaces may mount anything");
    command::output(&mut command::command("ip", ["link", "set", "lo", "up"]))?;
    // A root must be a mount of its own to be gone into for good; after `chroot` alone no user namespace can be made,
    // which some tests do.
    mount_bind_recursive(&inside.root, &inside.root).context("mounting the root file system")?;
    let below = |path: &str| inside.root.join(path);
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    mount("proc", below("proc"), "proc", plain | MountFlags::NOEXEC, None).context("mounting /proc")?;
    mount_bind_recursive("/dev", below("dev")).context("mounting /dev")?;
    mount("tmpfs", below("dev/shm"), "tmpfs", plain, Some(c"mode=1777")).context("mounting /dev/shm")?;
    // In memory: these tests kill processes and never cut the power, and their servers write a lot.
    mount("tmpfs", below("tmp"), "tmpfs", plain, Some(c"mode=1777")).context("mounting /tmp")?;
    fs::copy(&inside.program, below("tmp/program")).context("copying the program inside")?;
    std::env::set_current_dir(&inside.root).context("going to the root file system")?;
    pivot_root(".", ".").context("going inside")?;
    unmount(".", UnmountFlags::DETACH).context("leaving everything else")?;
    std::env::set_current_dir("/").context("going to the root directory")?;

    let directory = format!("/usr/lib/postgresql/{}/bin", inside.major);
    let mut program = Command::new("/tmp/program");
    program.args(&inside.rest).env_clear().env(VARIABLE, directory).env("PATH", "/usr/bin:/bin");
    for kept in ["RUST_BACKTRACE", "RUST_TEST_THREADS", "RUST_LOG", "PROPTEST_CASES"] {
        if let Some(value) = std::env::var_os(kept) {
            program.env(kept, value);
        }
    }
    let child = program.uid(POSTGRES).gid(POSTGRES).spawn().context("starting the program")?;
    let child = i32::try_from(child.id()).context("a process id beyond all bounds")?;
    loop {
        let Some((pid, status)) =
            rustix::process::wait(WaitOptions::empty()).context("waiting for a process")?
        else {
            continue;
        };
        if pid.as_raw_nonzero().get() == child {
            let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
    }
}
