//! This program called by itself, and the tree that it belongs to.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

/// The root of the tree: where cargo says that this package is, and only when it did not start this program, where it was
/// compiled. Two checkouts may share a target directory, and cargo does not compile again for a path alone.
pub(crate) fn tree() -> PathBuf {
    let now = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = now.filter(|it| it.ends_with("xtask")).unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    package.join("..")
}

/// Another subcommand of this program.
pub(crate) fn xtask<const N: usize>(arguments: [&str; N]) -> Result<Command> {
    let named = std::env::current_exe().context("finding this program")?;
    // A build in the same tree meanwhile takes the name away, not the program: what was started must still be ended.
    let program = if named.exists() { named } else { PathBuf::from("/proc/self/exe") };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(tree());
    Ok(command)
}

/// The cargo that runs this program, else whichever is found.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).current_dir(tree());
    cargo
}

/// `rig` with this action on the rig of this name, or on the usual one.
fn rig(name: Option<&str>, action: &'static str) -> Result<Command> {
    let mut command = xtask(["rig", action])?;
    if let Some(name) = name {
        command.env("MATRIARCH_RIG", name);
    }
    Ok(command)
}

/// A rig that this command started and must not leave behind.
///
/// A caretaker process takes it down should this one be interrupted or killed: nobody else could then.
pub(crate) struct StartedRig {
    caretaker: Child,
    /// Which one, unless it is the usual one.
    name: Option<&'static str>,
}

impl StartedRig {
    /// Starts the rig of this name, or the usual one, unless it runs already: then it is not ours to take down and nothing
    /// is returned.
    pub(crate) fn unless_running(name: Option<&'static str>, arguments: &[&str]) -> Result<Option<Self>> {
        let running = rig(name, "status")?
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("asking how the rig is")?
            .success();
        if running {
            return Ok(None);
        }
        let exe = std::env::current_exe().context("finding this program")?;
        let parent = std::process::id().to_string();
        let mut caretaker = Command::new("sh");
        caretaker
            .args(["-c", "tail --pid=\"$1\" -f /dev/null; exec \"$2\" rig down", "caretaker", &parent])
            .arg(exe)
            .current_dir(tree())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(name) = name {
            caretaker.env("MATRIARCH_RIG", name);
        }
        let caretaker = caretaker.spawn().context("starting the rig's caretaker")?;
        let started = Self { caretaker, name };
        let status = rig(name, "up")?.args(arguments).status().context("starting the rig")?;
        if status.success() {
            return Ok(Some(started));
        }
        drop(started);
        anyhow::bail!("the rig did not start")
    }

    /// Leaves it running after all.
    pub(crate) fn keep(mut self) {
        self.dismiss();
        std::mem::forget(self);
    }

    fn dismiss(&mut self) {
        // The group, for the shell has a child of its own.
        if let Ok(pid) = i32::try_from(self.caretaker.id())
            && let Some(group) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.caretaker.wait();
    }
}

impl Drop for StartedRig {
    fn drop(&mut self) {
        if let Ok(mut down) = rig(self.name, "down")
            && let Err(error) = down.status()
        {
            eprintln!("error: taking the rig down: {error}");
        }
        self.dismiss();
    }
}
