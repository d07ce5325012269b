//! The same servers without anybody: started on copies of the members' directories.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use postgres::server::{StartCommand, StopMode, clear_remains};
use postgres::{Binaries, Layout};
use rustix::process::{Pid, kill_process};

use super::pair::{Pair, streams};
use super::{BOUND, LOOK};

/// One server.
struct Server {
    layout: Layout,
    log: PathBuf,
}

/// Both.
pub(super) struct Bare {
    master: Server,
    standby: Server,
    binaries: Binaries,
}

/// Both run; killed when dropped.
pub(super) struct Running<'a> {
    bare: &'a Bare,
    children: Vec<Child>,
}

impl Bare {
    /// Copies the directories of members that do not run.
    pub(super) fn copy(root: &Path, pair: &Pair, binaries: &Binaries) -> Result<Self> {
        let (mut masters, mut standbys) = (Vec::new(), Vec::new());
        for member in &pair.members {
            ensure!(!member.runs(), "{} runs", member.name);
            let own = root.join("bare").join(&member.name);
            std::fs::create_dir_all(&own).context("make a directory")?;
            let copied = Command::new("/bin/cp")
                .arg("--archive")
                .args([member.layout.volume(), &own.join("volume")])
                .status()
                .context("copy a volume")?;
            ensure!(copied.success(), "a volume cannot be copied");
            // The configuration names the directory of sockets; nobody else uses it meanwhile.
            let layout =
                Layout::new(own.join("volume")).with_socket(member.layout.run(), member.layout.port());
            let wal = layout.data().join("pg_wal");
            ensure!(!wal.is_symlink(), "the WAL is elsewhere and was not copied");
            let of = if layout.standby_signal().exists() { &mut standbys } else { &mut masters };
            of.push(Server { layout, log: own.join("log") });
        }
        match (masters.pop(), standbys.pop()) {
            (Some(master), Some(standby)) => Ok(Self { master, standby, binaries: binaries.clone() }),
            (None, _) => bail!("none of the copies is a master"),
            (_, None) => bail!("none of the copies is a standby"),
        }
    }

    /// Starts both and waits for the quorum.
    pub(super) async fn start(&self) -> Result<Running<'_>> {
        let mut running = Running { bare: self, children: Vec::new() };
        for server in [&self.master, &self.standby] {
            clear_remains(&server.layout).context("clear what an earlier life left")?;
            let command = StartCommand::new(&self.binaries, &server.layout).context("start a bare server")?;
            let log = File::options().create(true).append(true).open(&server.log).context("make a log")?;
            let child = Command::new(&command.program)
                .args(&command.args)
                .env_clear()
                .envs(command.environment)
                .stdin(Stdio::null())
                .stdout(log.try_clone().context("make a log")?)
                .stderr(log)
                .spawn()
                .context("start a bare server")?;
            running.children.push(child);
        }
        let begun = Instant::now();
        loop {
            let why = match streams(running.master()).await {
                Ok(true) => return Ok(running),
                Ok(false) => "the standby is in no quorum".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            ensure!(begun.elapsed() < BOUND, "the bare pair does not come up: {why}\n{}", self.said());
            tokio::time::sleep(LOOK).await;
        }
    }

    fn said(&self) -> String {
        let last = |server: &Server| {
            let text = std::fs::read_to_string(&server.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
        };
        format!("the master said last:\n{}\nthe standby:\n{}", last(&self.master), last(&self.standby))
    }
}

impl Running<'_> {
    /// The master.
    pub(super) fn master(&self) -> &Layout {
        &self.bare.master.layout
    }

    /// Ends both; the master first, which waits until its standby has everything.
    pub(super) async fn end(mut self) -> Result<()> {
        for child in &mut self.children {
            let pid =
                i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process without id")?;
            kill_process(pid, StopMode::Fast.signal()).context("end a bare server")?;
            let asked = Instant::now();
            while child.try_wait().context("wait for a bare server")?.is_none() {
                ensure!(asked.elapsed() < BOUND, "a bare server does not end\n{}", self.bare.said());
                tokio::time::sleep(LOOK).await;
            }
        }
        self.children.clear();
        Ok(())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Its children see at once that it is gone, and end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
