//! containerd's own files with all base images unpacked in them, made once and given to every node as links:
//! importing gigabytes on every node at every start would be most of the start.
//!
//! Linking is safe for blobs (hard links) and for layers (symbolic ones, a layer each), which containerd and the
//! kernel only ever read, and which a node forgets by removing its link. Databases are written in place and are
//! therefore copied.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cache::{Cache, Key};
use crate::command;
use crate::golang::Programs;

/// How long containerd may take to start, and to end.
const LIMIT: Duration = Duration::from_secs(30);

/// The directory, made when it is missing.
pub(crate) fn ensure(cache: &Cache, programs: &Programs, archives: &[PathBuf]) -> Result<PathBuf> {
    let mut key = Key::new("template 1").with(programs.containerd.to_string_lossy().as_bytes());
    for archive in archives {
        // Its name holds the hash of what it was made from.
        key = key.with(archive.to_string_lossy().as_bytes());
    }
    cache.ensure("template", "containerd", &key, "", |directory| {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        let server = Server::start(cache, programs, directory)?;
        for archive in archives {
            let mut import = Command::new(programs.containerd.join("ctr"));
            import.arg("--address").arg(&server.socket);
            import.args(["--namespace", "k8s.io", "images", "import"]).arg(archive);
            let name = archive.file_name().unwrap_or_default().to_string_lossy();
            command::run(&format!("unpack {name}"), import)?;
        }
        server.stop()
    })
}

/// Gives a node its own copy, unless it has one.
pub(crate) fn copy(template: &Path, node: &Path) -> Result<()> {
    if node.join("io.containerd.metadata.v1.bolt").exists() {
        return Ok(());
    }
    let partial = node.with_extension("partial");
    crate::cache::remove(&partial)?;
    crate::cache::remove(node)?;
    copy_below(template, &partial)?;
    fs::rename(&partial, node).with_context(|| format!("naming {}", node.display()))
}

fn copy_below(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("creating {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let entry = entry.with_context(|| format!("listing {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().with_context(|| format!("looking at {}", source.display()))?;
        let done = if !kind.is_dir() {
            if from.ends_with("blobs/sha256") {
                fs::hard_link(&source, &target)
            } else {
                fs::copy(&source, &target).map(drop)
            }
        } else if from.ends_with("snapshots") {
            std::os::unix::fs::symlink(&source, &target)
        } else {
            copy_below(&source, &target)?;
            Ok(())
        };
        done.with_context(|| format!("copying {}", source.display()))?;
    }
    Ok(())
}

/// A containerd that only imports.
struct Server {
    child: Child,
    socket: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Server {
    fn start(cache: &Cache, programs: &Programs, root: &Path) -> Result<Self> {
        let scratch = tempfile::tempdir_in(cache.root()).context("making a directory for containerd")?;
        let socket = scratch.path().join("socket");
        let config = scratch.path().join("config.toml");
        let text = format!(
            "version = 3\nroot = \"{}\"\nstate = \"{}\"\noom_score = 0\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = \"{}\"\n",
            root.display(),
            scratch.path().join("state").display(),
            socket.display()
        );
        fs::write(&config, text).context("writing containerd's configuration")?;
        let log = fs::File::create(scratch.path().join("log")).context("making a log")?;
        // A mount namespace of its own takes every mount along when it ends.
        let child = command::command("unshare", ["--mount", "--kill-child=KILL", "--fork", "--"])
            .arg(programs.containerd.join("containerd"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(log.try_clone().context("copying a descriptor")?)
            .stdout(log)
            .spawn()
            .context("starting containerd")?;
        let mut server = Self { child, socket, _scratch: scratch };
        let started = Instant::now();
        while UnixStream::connect(&server.socket).is_err() {
            let ended = server.child.try_wait().context("watching containerd")?.is_some();
            if ended || started.elapsed() > LIMIT {
                let log = fs::read_to_string(server.socket.with_file_name("log")).unwrap_or_default();
                ensure!(false, "containerd does not start:\n  {}", command::last_lines(&log, 25));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Ends it in order, so that its databases are whole.
    fn stop(mut self) -> Result<()> {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        for pid in
            children.split_whitespace().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?))
        {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("ending containerd")?;
        }
        let started = Instant::now();
        while self.child.try_wait().context("waiting for containerd")?.is_none() {
            ensure!(started.elapsed() < LIMIT, "containerd does not end");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
