//! Real servers, and what is done to them for each operation.
//!
//! Decides when an operation has been done: when PostgreSQL has surely been told. What follows from it is seen
//! afterwards (`look`). Must never be kinder to the servers than an agent is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use ha::{Incarnation, Names, Timeline};
use postgres::Binaries;
use postgres::history::plant;
use rustix::process::Signal;

use crate::client::Client;
use crate::operation::{Model, Operation};
use crate::relay::Relay;
use crate::server::{BOUND, Server};

/// A few servers.
#[derive(Debug)]
pub struct Real {
    pub(crate) servers: Vec<Server>,
    pub(crate) clients: BTreeMap<u32, Client>,
    pub(crate) incarnations: Vec<Incarnation>,
    /// `relays[from][to]`.
    relays: Vec<Vec<Relay>>,
    cut: Vec<(usize, usize)>,
    /// Who is started or promoted as a master: nobody may stream from anybody else.
    masters: Vec<bool>,
}

/// A directory that all servers begin with, made once.
pub async fn template(binaries: &Binaries, root: &Path) -> Result<PathBuf> {
    let data = root.join("template");
    let mut server = {
        let words = ["--auth=trust", "--username=postgres", "--wal-segsize=1", "--no-sync", "-D"];
        let mut words: Vec<String> = words.map(str::to_owned).to_vec();
        words.push(data.display().to_string());
        let made = root.join("empty");
        std::fs::create_dir(&made).context("making a directory")?;
        let server = Server::new(binaries, root, &made, 99)?;
        server.program("initdb", &words).await?;
        std::fs::remove_dir(server.layout.data()).context("removing a directory")?;
        crate::server::copy_below(&data, &server.layout.data())?;
        server.layout.prepare().context("preparing a directory")?;
        server
    };
    server.start(false)?;
    server.wait_for("SELECT true").await?;
    server.execute("CREATE TABLE t (id int NOT NULL, written pg_lsn)").await?;
    server.stop(Signal::INT).await?;
    Ok(server.layout.data())
}

impl Real {
    /// The first server is a master that waits for nobody, the others stream from it.
    pub async fn new(binaries: &Binaries, template: &Path, root: &Path, model: &Model) -> Result<Self> {
        let count = model.servers.count();
        let servers = (0..count).map(|m| Server::new(binaries, root, template, m));
        let servers = servers.collect::<Result<Vec<_>>>()?;
        let mut relays = Vec::new();
        for _ in 0..count {
            let mut row = Vec::new();
            for server in &servers {
                row.push(Relay::new(server.layout.socket()).await?);
            }
            relays.push(row);
        }
        let incarnations = (0..count).map(|m| model.servers.incarnation(m)).collect();
        let (clients, masters) = (BTreeMap::new(), vec![false; count]);
        let mut real = Self { servers, clients, incarnations, relays, cut: Vec::new(), masters };
        real.start_primary(0, String::new())?;
        for m in 1..count {
            real.start_standby(m, Some(0))?;
        }
        Ok(real)
    }

    /// Which server listens behind this port for this standby.
    pub(crate) fn behind(&self, m: usize, port: u16) -> Option<usize> {
        self.relays.get(m)?.iter().position(|relay| relay.port() == port)
    }

    fn server(&mut self, m: usize) -> Result<&mut Server> {
        self.servers.get_mut(m).with_context(|| format!("there is no server {m}"))
    }

    /// Opens every way to a master that is not cut.
    fn route(&self) {
        for (from, row) in self.relays.iter().enumerate() {
            for (to, relay) in row.iter().enumerate() {
                let cut = self.cut.contains(&(from.min(to), from.max(to)));
                relay.set_open(!cut && self.masters.get(to) == Some(&true));
            }
        }
    }

    fn set_master(&mut self, m: usize, master: bool) {
        if let Some(known) = self.masters.get_mut(m) {
            *known = master;
        }
        self.route();
    }

    fn conninfo(&self, m: usize, of: Option<usize>) -> String {
        let relay = of.and_then(|of| self.relays.get(m)?.get(of));
        let name = self.incarnations.get(m).map(|incarnation| ha::types::application_name(*incarnation));
        match (relay, name) {
            (Some(relay), Some(name)) => format!(
                "host=127.0.0.1 port={} user=postgres application_name={name} sslmode=disable gssencmode=disable",
                relay.port()
            ),
            _ => String::new(),
        }
    }

    fn start_primary(&mut self, m: usize, names: String) -> Result<()> {
        let server = self.server(m)?;
        server.names = names;
        server.conninfo = String::new();
        server.start(false)?;
        self.set_master(m, true);
        Ok(())
    }

    fn start_standby(&mut self, m: usize, of: Option<usize>) -> Result<()> {
        let conninfo = self.conninfo(m, of);
        self.set_master(m, false);
        let server = self.server(m)?;
        server.conninfo = conninfo;
        server.start(true)
    }

    /// Does it; `model` is the model before it.
    pub async fn apply(&mut self, operation: &Operation, model: &Model) -> Result<()> {
        let named = |names| rendered(&model.names(names));
        match operation {
            Operation::Write { row, on, weak } => {
                self.begin(*row, *on).await?;
                self.client(*row)?.commit(*row, *weak).await
            }
            Operation::Begin { row, on } => self.begin(*row, *on).await,
            Operation::Commit { row } => self.client(*row)?.commit(*row, false).await,
            Operation::Cancel { row } => self.signal_backend("pg_cancel_backend", *row).await,
            Operation::Terminate { row } => self.signal_backend("pg_terminate_backend", *row).await,
            Operation::Names { on, names } => {
                let server = self.server(*on)?;
                server.names = named(names);
                server.reload().await?;
                if server.checkpointer.is_some() {
                    return Ok(());
                }
                // The checkpointer sets the flag that backends look at (P5). A first checkpoint may have begun before
                // it was told; the second has not.
                server.execute("CHECKPOINT").await?;
                server.execute("CHECKPOINT").await
            }
            Operation::Stop { m, fast } => {
                let stopped = self.server(*m)?.stop(if *fast { Signal::INT } else { Signal::QUIT }).await;
                self.set_master(*m, false);
                stopped
            }
            Operation::Kill { m } => {
                self.server(*m)?.kill().await?;
                self.set_master(*m, false);
                Ok(())
            }
            Operation::StartPrimary { m, names } => self.start_primary(*m, named(names)),
            Operation::StartStandby { m, of } => self.start_standby(*m, *of),
            Operation::Follow { m, of } => {
                let conninfo = self.conninfo(*m, Some(*of));
                let server = self.server(*m)?;
                server.conninfo = conninfo;
                server.reload().await
            }
            Operation::Detach { m } => {
                let paused = model.servers.is_paused(*m);
                self.detach(*m, paused).await
            }
            Operation::Cut { a, b } => {
                self.cut.push((*a, *b));
                self.route();
                Ok(())
            }
            Operation::Mend { a, b } => {
                self.cut.retain(|cut| cut != &(*a, *b));
                self.route();
                Ok(())
            }
            Operation::Promote { m, above, names } => {
                if *above > 0 {
                    // As an agent does it: a planted file names the member's own end, so that must stand still (P11).
                    self.detach(*m, model.servers.is_paused(*m)).await?;
                }
                self.promote(*m, *above, named(names)).await?;
                self.set_master(*m, true);
                Ok(())
            }
            Operation::Rewind { m, from } => self.rewind(*m, *from).await,
            Operation::Clone { m, from } => self.clone_from(*m, *from).await,
            Operation::Pause { m } => {
                let server = self.server(*m)?;
                server.execute("SELECT pg_wal_replay_pause()").await?;
                server.wait_for(PAUSED).await
            }
            Operation::Resume { m } => self.server(*m)?.execute("SELECT pg_wal_replay_resume()").await,
            Operation::Hold { m } => self.server(*m)?.hold_checkpointer().await,
            Operation::Release { m } => {
                let server = self.server(*m)?;
                server.release_checkpointer();
                server.execute("CHECKPOINT").await?;
                server.execute("CHECKPOINT").await
            }
            Operation::Freeze { m } => {
                let server = self.server(*m)?;
                server.signal_all(Signal::STOP);
                server.frozen = true;
                Ok(())
            }
            Operation::Thaw { m } => {
                let server = self.server(*m)?;
                server.signal_all(Signal::CONT);
                server.frozen = false;
                Ok(())
            }
        }
    }

    fn client(&mut self, row: u32) -> Result<&mut Client> {
        self.clients.get_mut(&row).with_context(|| format!("nobody writes row {row}"))
    }

    async fn begin(&mut self, row: u32, on: usize) -> Result<()> {
        let run = self.server(on)?.layout.run().to_owned();
        let client = tokio::time::timeout(BOUND, Client::begin(row, on, &run)).await;
        self.clients.insert(row, client.context("a client gets no answer")??);
        Ok(())
    }

    async fn signal_backend(&mut self, function: &str, row: u32) -> Result<()> {
        let client = self.client(row)?;
        let (on, pid) = (client.on, client.pid);
        self.server(on)?.execute(&format!("SELECT {function}({pid})")).await
    }

    /// As a seal does it (P13): the startup process has surely looked at its signals before the receivers end.
    async fn detach(&mut self, m: usize, paused: bool) -> Result<()> {
        let server = self.server(m)?;
        server.conninfo = String::new();
        server.reload().await?;
        for _ in 0..2 {
            server.execute("SELECT pg_wal_replay_resume(), pg_wal_replay_pause()").await?;
            server.wait_for(PAUSED).await?;
        }
        server.wait_for(RECEIVERS_ENDED).await?;
        if !paused {
            server.execute("SELECT pg_wal_replay_resume()").await?;
        }
        Ok(())
    }

    async fn promote(&mut self, m: usize, above: u32, names: String) -> Result<()> {
        let server = self.server(m)?;
        server.names = names;
        server.reload().await?;
        if above > 0 {
            // The measured end, as an agent has it (P8, P11): a server that was just started may say too little of what
            // it has received, or too much.
            let end = server.end_of_log().await?;
            let wal = server.layout.wal();
            let mut target = end.timeline.0 + above + 1;
            while wal.join(format!("{target:08X}.history")).exists() {
                target += 1;
            }
            let planned = plant::plan(&wal, end.timeline, Timeline(target))?;
            plant::plant(&wal, end, &planned)?;
            if above.is_multiple_of(2) {
                // An agent reads the record afresh now, and the startup process may notice what was planted.
                tokio::time::sleep(NOTICES).await;
            }
        }
        server.execute("SELECT pg_promote(false)").await?;
        server.wait_for("SELECT NOT pg_is_in_recovery()").await?;
        server.execute("CHECKPOINT").await?;
        server.execute("CHECKPOINT").await
    }

    async fn rewind(&mut self, m: usize, from: usize) -> Result<()> {
        let source = format!("host={} user=postgres dbname=postgres", self.run(from)?.display());
        let server = self.server(m)?;
        let signal = server.layout.standby_signal();
        if signal.exists() {
            std::fs::remove_file(signal).context("removing standby.signal")?;
        }
        server.configure()?;
        let words = [
            "--target-pgdata".to_owned(),
            server.layout.data().display().to_string(),
            "--no-sync".to_owned(),
        ];
        let words = [&words[..], &[format!("--source-server={source}")]].concat();
        server.program("pg_rewind", &words).await.map(|_| ())
    }

    async fn clone_from(&mut self, m: usize, from: usize) -> Result<()> {
        let source = self.run(from)?.display().to_string();
        let server = self.server(m)?;
        let data = server.layout.data();
        std::fs::remove_dir_all(&data).context("removing a directory")?;
        let data = data.display().to_string();
        let words = ["-D", &data, "-h", &source, "-U", "postgres", "-c", "fast", "-X", "stream", "--no-sync"];
        server.program("pg_basebackup", &words.map(str::to_owned)).await.map(|_| ())
    }

    fn run(&mut self, m: usize) -> Result<PathBuf> {
        Ok(self.server(m)?.layout.run().to_owned())
    }

    /// The end of every server's log.
    pub fn logs(&self) -> String {
        let one = |(m, server): (usize, &Server)| format!("--- log of {m}\n{}\n", server.log());
        self.servers.iter().enumerate().map(one).collect()
    }
}

/// A few times as long as a startup process takes to look for timelines again (`wal_retrieve_retry_interval`).
const NOTICES: Duration = Duration::from_millis(400);
const PAUSED: &str = "SELECT pg_get_wal_replay_pause_state() = 'paused'";
const RECEIVERS_ENDED: &str = "\
SELECT count(pg_terminate_backend(pid)) = 0 FROM pg_stat_activity WHERE backend_type = 'walreceiver'";

/// The value of `synchronous_standby_names`.
fn rendered(names: &Names) -> String {
    match names {
        Names::Alone => String::new(),
        Names::Quorum { members, acks } => {
            let names: Vec<String> =
                members.iter().map(|m| format!("\"{}\"", ha::types::application_name(*m))).collect();
            format!("ANY {acks} ({})", names.join(", "))
        }
        Names::Unknown | Names::Placeholder => "ANY 1 (stranger)".to_owned(),
    }
}
