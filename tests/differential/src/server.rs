//! One real server: its directory, its processes, its settings.
//!
//! Settings are the test's own and plain: what is compared is PostgreSQL, not the agent's rendering. Must never leave a
//! process behind.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ha::Position;
use postgres::command::waldump::WalReader;
use postgres::wal::SegmentSize;
use postgres::{Binaries, Layout, Session};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// Bound of every step: generous, it only catches a hang.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// A server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) binaries: Binaries,
    pub(crate) layout: Layout,
    /// `synchronous_standby_names`.
    pub(crate) names: String,
    /// `primary_conninfo`.
    pub(crate) conninfo: String,
    pub(crate) frozen: bool,
    pub(crate) session: Option<tokio_postgres::Client>,
    log: PathBuf,
    child: Option<Child>,
    /// The background writer, held.
    writer: Option<i32>,
    /// The checkpointer, while it is held.
    pub(crate) checkpointer: Option<i32>,
}

/// What all servers have in common.
const SETTINGS: &str = "\
listen_addresses = ''
shared_buffers = 16MB
max_connections = 60
wal_log_hints = on
wal_keep_size = 256MB
max_wal_size = 2GB
checkpoint_timeout = 1d
autovacuum = off
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
wal_retrieve_retry_interval = 100ms
wal_receiver_status_interval = 1s
restart_after_crash = off
lc_messages = C
log_checkpoints = off
";

impl Server {
    /// A server with a copy of this directory.
    pub(crate) fn new(binaries: &Binaries, root: &Path, template: &Path, m: usize) -> Result<Self> {
        let (volume, run) = (root.join(format!("v{m}")), root.join(format!("r{m}")));
        std::fs::create_dir(&volume).context("making a volume")?;
        std::fs::create_dir(&run).context("making a socket's directory")?;
        let layout = Layout::new(volume).with_socket(run, postgres::layout::PORT);
        copy_below(template, &layout.data())?;
        layout.prepare().context("preparing a directory")?;
        Ok(Self {
            binaries: binaries.clone(),
            layout,
            names: String::new(),
            conninfo: String::new(),
            frozen: false,
            session: None,
            log: root.join(format!("log{m}")),
            child: None,
            writer: None,
            checkpointer: None,
        })
    }

    /// Writes the settings.
    pub(crate) fn configure(&self) -> Result<()> {
        let mut text = SETTINGS.to_owned();
        let value = |value: &str| value.replace('\'', "''");
        writeln!(text, "unix_socket_directories = '{}'", self.layout.run().display())?;
        writeln!(text, "synchronous_standby_names = '{}'", value(&self.names))?;
        writeln!(text, "primary_conninfo = '{}'", value(&self.conninfo))?;
        std::fs::write(self.layout.data().join("postgresql.conf"), text).context("writing settings")?;
        // A base backup or a rewind may bring another server's.
        std::fs::write(self.layout.data().join("postgresql.auto.conf"), "").context("writing settings")
    }

    /// Starts it, with or without `standby.signal`; whether it comes up is seen later.
    pub(crate) fn start(&mut self, standby: bool) -> Result<()> {
        let signal = self.layout.standby_signal();
        if standby {
            std::fs::write(&signal, "").context("writing standby.signal")?;
        } else if signal.exists() {
            std::fs::remove_file(&signal).context("removing standby.signal")?;
        }
        let pid = self.layout.data().join("postmaster.pid");
        if pid.exists() {
            std::fs::remove_file(pid).context("removing postmaster.pid")?;
        }
        self.configure()?;
        let log = std::fs::File::options().create(true).append(true).open(&self.log).context("a log")?;
        let child = Command::new(self.binaries.program("postgres"))
            .arg("-D")
            .arg(self.layout.data())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("a log")?)
            .stderr(log)
            .spawn()
            .context("starting a server")?;
        self.child = Some(child);
        self.writer = None;
        self.checkpointer = None;
        Ok(())
    }

    /// Stops the background writer where it is: it logs a list of running transactions whenever it likes, and a master's
    /// log would differ from its standby's although nobody wrote anything. What it has written, the walwriter flushes;
    /// until then it is on its way to the standbys.
    pub(crate) async fn hold_writer(&mut self) -> Result<()> {
        if self.writer.is_none() {
            self.writer = self.hold("background writer").await?;
            let start = Instant::now();
            let flushed =
                "SELECT pg_is_in_recovery() OR pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()";
            // At the end of a page the two never meet.
            while start.elapsed() < Duration::from_secs(1)
                && !self.session().await?.query_one(flushed, &[]).await?.try_get::<_, bool>(0)?
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    /// Stops the checkpointer where it is: settings that it has not read are not in force (P5).
    pub(crate) async fn hold_checkpointer(&mut self) -> Result<()> {
        self.checkpointer = self.hold("checkpointer").await?;
        ensure!(self.checkpointer.is_some(), "there is no checkpointer");
        Ok(())
    }

    /// Lets it go on.
    pub(crate) fn release_checkpointer(&mut self) {
        send(self.checkpointer.take(), Signal::CONT);
    }

    /// Stops a process of this kind, surely.
    async fn hold(&mut self, kind: &str) -> Result<Option<i32>> {
        let query = "SELECT pid FROM pg_stat_activity WHERE backend_type = $1";
        let row = self.session().await?.query_opt(query, &[&kind]).await?;
        let pid: Option<i32> = row.map(|row| row.try_get(0)).transpose()?;
        send(pid, Signal::STOP);
        let start = Instant::now();
        while pid.and_then(|pid| stat(pid.try_into().ok()?)).is_some_and(|(state, _)| state != 'T') {
            ensure!(start.elapsed() < BOUND, "the {kind} does not stop");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(pid)
    }

    /// The end of a standby's log that streams from nobody, as an agent measures it.
    pub(crate) async fn end_of_log(&self) -> Result<Position> {
        let session = Session::open(&self.layout, BOUND).await.context("opening a session")?;
        let segment = SegmentSize::new(1 << 20).context("a segment size")?;
        let reader = WalReader::new(&self.binaries, &self.layout.data(), segment);
        Ok(postgres::seal::end_of_wal(&self.layout, &session, &reader, "", BOUND).await?)
    }

    /// Whether its postmaster runs.
    pub(crate) fn is_running(&mut self) -> bool {
        let ended = self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            self.child = None;
            self.session = None;
        }
        !ended
    }

    /// Stops it and waits for its end.
    pub(crate) async fn stop(&mut self, signal: Signal) -> Result<()> {
        self.session = None;
        let Some(mut child) = self.child.take() else { bail!("it does not run") };
        send(child.id(), signal);
        send(self.writer.take(), Signal::CONT);
        self.release_checkpointer();
        if let Ok(status) = tokio::time::timeout(BOUND, child.wait()).await {
            return status.map(|_| ()).context("waiting for a server's end");
        }
        self.child = Some(child);
        bail!("it does not stop within {BOUND:?}")
    }

    /// Kills every process of it.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.session = None;
        self.frozen = false;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let children = children(child.id());
        child.kill().await.context("killing a server")?;
        for pid in &children {
            send(Some(*pid), Signal::KILL);
        }
        // They are the shared memory's last users, and a start is refused while it is in use.
        let start = Instant::now();
        while children.iter().any(|pid| is_alive(*pid)) {
            ensure!(start.elapsed() < BOUND, "a process survives SIGKILL");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Sends every process of it this signal.
    pub(crate) fn signal_all(&self, signal: Signal) {
        let postmaster = self.child.as_ref().and_then(Child::id);
        send(postmaster, signal);
        for pid in children(postmaster) {
            send(Some(pid), signal);
        }
        if signal == Signal::CONT {
            send(self.writer, Signal::STOP);
        }
    }

    /// A session of the test's own.
    pub(crate) async fn session(&mut self) -> Result<&tokio_postgres::Client, tokio_postgres::Error> {
        let session = match self.session.take() {
            Some(session) if !session.is_closed() => session,
            _ => crate::client::connect(self.layout.run(), "test", |_| ()).await?,
        };
        Ok(self.session.insert(session))
    }

    /// Statements on the test's own session, within [`BOUND`].
    pub(crate) async fn execute(&mut self, sql: &str) -> Result<()> {
        let session = self.session().await.context("opening the test's session")?;
        let done = tokio::time::timeout(BOUND, session.batch_execute(sql)).await;
        done.with_context(|| format!("no answer to {sql}"))?.with_context(|| sql.to_owned())
    }

    /// Waits until a statement on the test's own session says true.
    pub(crate) async fn wait_for(&mut self, sql: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Ok(session) = self.session().await
                && let Ok(row) = session.query_one(sql, &[]).await
                && row.try_get::<_, bool>(0).unwrap_or(false)
            {
                return Ok(());
            }
            ensure!(self.is_running(), "it ended while this was waited for: {sql}");
            ensure!(start.elapsed() < BOUND, "this does not come true: {sql}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Reloads; afterwards the postmaster has read the settings and has told every process.
    pub(crate) async fn reload(&mut self) -> Result<()> {
        self.configure()?;
        let session = self.session().await.context("opening the test's session")?;
        let row = session.query_one("SELECT clock_timestamp()::text, pg_reload_conf()", &[]).await?;
        let before: String = row.try_get(0)?;
        let start = Instant::now();
        loop {
            // A new backend inherits the postmaster's load time. The second one is forked after everybody was told.
            self.session = None;
            let loaded = format!("SELECT pg_conf_load_time() >= '{before}'");
            if self.session().await?.query_one(&loaded, &[]).await?.try_get::<_, bool>(0)? {
                self.session = None;
                self.session().await?;
                return Ok(());
            }
            ensure!(start.elapsed() < BOUND, "the settings are not read");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Runs a program of PostgreSQL to its end; what it said when it failed.
    pub(crate) async fn program(&self, name: &str, arguments: &[String]) -> Result<String> {
        let mut command = Command::new(self.binaries.program(name));
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(BOUND, command.output()).await.context("it does not end")?;
        let output = output.with_context(|| format!("running {name}"))?;
        let said = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let all = said(&output.stdout) + &said(&output.stderr);
        ensure!(output.status.success(), "{name} {arguments:?} failed: {all}");
        Ok(all)
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let noise =
            ["waiting for WAL to become", "could not connect to", "probably means", "processing the req"];
        let lines = text.lines().filter(|line| !noise.iter().any(|noise| line.contains(noise)));
        let lines: Vec<&str> = lines.collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Frozen ones too: SIGKILL waits for nobody.
        self.signal_all(Signal::KILL);
    }
}

fn send(pid: Option<impl TryInto<i32>>, signal: Signal) {
    if let Some(pid) = pid.and_then(|pid| pid.try_into().ok()).and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// The kernel's list of a process's children.
fn children(parent: Option<u32>) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent.is_some() && stat(*pid).map(|(_, of)| of) == parent).collect()
}

/// Copies a directory.
pub(crate) fn copy_below(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to).with_context(|| format!("making {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry.context("reading a directory")?;
        let target = to.join(entry.file_name());
        if entry.file_type().context("reading a directory")?.is_dir() {
            copy_below(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target).context("copying a file")?;
        }
    }
    Ok(())
}
