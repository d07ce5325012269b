//! One repetition: both pairs, one after the other, each started anew.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use driver::scratch::Scratch;
use jiff::Timestamp;
use postgres::{Binaries, Layout, Session};
use serde::{Deserialize, Serialize};

use super::bare::Bare;
use super::idle::{self, Idle};
use super::load::{Load, Seen};
use super::pair::Pair;
use super::{BOUND, Storage, settings};

/// From a whole pair to the first look: what comes right after a start is no rest.
const SETTLE: Duration = Duration::from_secs(5);

/// What makes repetitions comparable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Settings {
    /// Version of PostgreSQL.
    pub(super) major: u16,
    /// Where the data is.
    pub(super) storage: Storage,
    /// pgbench's.
    pub(super) scale: u32,
    /// Of each number of clients.
    pub(super) seconds: u64,
    /// Of doing nothing.
    pub(super) idle_seconds: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    /// When.
    pub(super) at: String,
    /// What was asked for.
    #[serde(flatten)]
    pub(super) settings: Settings,
    /// The pair with agents came first.
    pub(super) agents_first: bool,
    /// With agents, by number of clients.
    pub(super) agents: Vec<Seen>,
    /// Bare, by number of clients.
    pub(super) bare: Vec<Seen>,
    /// Agents and supervisors at rest.
    pub(super) idle: Vec<Idle>,
}

impl Line {
    /// Numbers of clients, in growing order.
    pub(super) fn clients(&self) -> Vec<u32> {
        self.agents.iter().map(|seen| seen.clients).collect()
    }

    /// For people who wait.
    pub(super) fn told(&self) -> String {
        let pairs = self.agents.iter().zip(&self.bare).map(|(with, bare)| {
            let share = with.commits / bare.commits * 100.0;
            format!(
                "{} clients {:.0} of {:.0} commits/s ({share:.1} %)",
                with.clients, with.commits, bare.commits
            )
        });
        pairs.collect::<Vec<_>>().join(", ")
    }
}

/// Both pairs with the same tables, nothing running.
pub(super) struct Bench {
    pair: Pair,
    bare: Bare,
    load: Load,
    settings: Settings,
    clients: Vec<u32>,
    /// Of the bare master; that of the other pair is found anew each time.
    bare_at: Ipv4Addr,
    // Last: everything is below it.
    _root: Scratch,
}

impl Bench {
    /// Lets the members form, fills pgbench's tables, ends everybody and copies what they leave.
    pub(super) async fn prepare(binaries: &Binaries, settings: Settings, clients: Vec<u32>) -> Result<Self> {
        let root = Scratch::new_in(&settings.storage.directory(), "o");
        let root = root.context("make a directory for the servers")?;
        // What pgbench notes is on no disk.
        let load = Load::new(binaries, &PathBuf::from("/tmp"), settings.seconds);
        let pair = Pair::new(root.path(), binaries).await?;
        let master = pair.start().await?;
        let bare_at = master.address;
        load.initialise(bare_at, settings.scale).await?;
        checkpoint(&master.layout).await?;
        pair.kill();
        let bare = Bare::copy(root.path(), &pair, binaries)?;
        Ok(Self { pair, bare, load, settings, clients, bare_at, _root: root })
    }

    /// Measures once.
    pub(super) async fn once(&self, agents_first: bool) -> Result<Line> {
        let mut bare = None;
        if !agents_first {
            bare = Some(self.bare().await?);
        }
        let (agents, idle, ours) = self.agents().await?;
        let bare = match bare {
            Some(bare) => bare,
            None => self.bare().await?,
        };
        let (bare, theirs) = bare;
        settings::ensure_equal(&ours, &theirs)?;
        let (at, settings) = (Timestamp::now().to_string(), self.settings.clone());
        Ok(Line { at, settings, agents_first, agents, bare, idle })
    }

    async fn agents(&self) -> Result<(Vec<Seen>, Vec<Idle>, Known)> {
        let master = self.pair.start().await?;
        tokio::time::sleep(SETTLE).await;
        let known = settings::read(&master.layout).await?;
        let idle =
            idle::watch(&self.pair, &master.name, Duration::from_secs(self.settings.idle_seconds)).await?;
        let seen = self.drive(&master.layout, master.address).await?;
        self.pair.ensure_whole(master).await?;
        self.pair.kill();
        Ok((seen, idle, known))
    }

    async fn bare(&self) -> Result<(Vec<Seen>, Known)> {
        let running = self.bare.start().await?;
        tokio::time::sleep(SETTLE).await;
        let known = settings::read(running.master()).await?;
        let seen = self.drive(running.master(), self.bare_at).await?;
        running.end().await?;
        Ok((seen, known))
    }

    async fn drive(&self, master: &Layout, at: Ipv4Addr) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for clients in &self.clients {
            // Every run begins with all of its pages to be logged whole, whatever came before.
            checkpoint(master).await?;
            seen.push(self.load.drive(at, *clients).await?);
        }
        Ok(seen)
    }
}

type Known = std::collections::BTreeMap<String, String>;

async fn checkpoint(master: &Layout) -> Result<()> {
    let session = Session::open(master, BOUND).await?;
    session.batch("checkpoint", "CHECKPOINT").await.context("checkpoint")
}
