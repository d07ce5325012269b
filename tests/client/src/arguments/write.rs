//! Writing: which workloads, with which connections, how many of each, and who is watched meanwhile.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::sync::watch;

use super::connect::Connect;
use super::tell::{Tell, or_die};
use super::{duration, identifier};
use crate::attempt::{Mode, Workload};
use crate::control::Control;
use crate::observer::Observer;
use crate::reader::Reader;
use crate::session::Door;
use crate::workload::{self, Isolation, Plan};
use crate::writer::Writer;

/// How long the tables may take to be made.
const PREPARE: Duration = Duration::from_secs(60);

/// Writes.
#[derive(Args)]
pub(crate) struct Write {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    tell: Tell,
    /// Write with a new connection for each row, at this pace.
    #[arg(long, value_name = "PACE", num_args = 0..=1, default_missing_value = "5ms", value_parser = duration)]
    fresh: Option<Duration>,
    /// Write with one kept connection, at this pace.
    #[arg(long, value_name = "PACE", num_args = 0..=1, default_missing_value = "5ms", value_parser = duration)]
    kept: Option<Duration>,
    /// Transfer between accounts, at this pace; the sum of all is kept.
    #[arg(long, value_name = "PACE", num_args = 0..=1, default_missing_value = "25ms", value_parser = duration)]
    transfers: Option<Duration>,
    /// Append to lists, at this pace; their order tells more than that something is there.
    #[arg(long, value_name = "PACE", num_args = 0..=1, default_missing_value = "25ms", value_parser = duration)]
    appends: Option<Duration>,
    /// Write rows and delete each a little later, at this pace.
    #[arg(long, value_name = "PACE", num_args = 0..=1, default_missing_value = "25ms", value_parser = duration)]
    deletes: Option<Duration>,
    /// The connections of --transfers, --appends and --deletes.
    #[arg(long, value_enum, default_value = "kept")]
    connections: Connections,
    /// How many writers of each kind.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    writers: u16,
    /// Also write rows to this host over a kept connection that stays with the address its name has first, whatever it
    /// leads to later; again for more.
    #[arg(long, value_name = "HOST[:PORT]")]
    pin: Vec<String>,
    /// The pace of --pin.
    #[arg(long, default_value = "5ms", value_parser = duration)]
    pin_every: Duration,
    /// Look at each of these members all the time: is it up, what role does it say it has?
    #[arg(long, value_name = "HOST[:PORT],…", value_delimiter = ',')]
    observe: Vec<String>,
    /// The pace of looking.
    #[arg(long, default_value = "50ms", value_parser = duration)]
    observe_every: Duration,
    /// The longest look.
    #[arg(long, default_value = "1s", value_parser = duration)]
    observe_timeout: Duration,
    /// How transfers keep out of each other's way.
    #[arg(long, value_enum, default_value = "locks")]
    isolation: Isolation,
    /// How many accounts.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(i32).range(2..=100_000))]
    accounts: i32,
    /// How many lists.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    lists: i32,
    /// The table, also the beginning of the names of the other tables; made when missing.
    #[arg(long, default_value = "t", value_parser = identifier)]
    table: String,
    /// Read through this host as well.
    #[arg(long)]
    read_host: Option<String>,
    /// The pace of reading.
    #[arg(long, default_value = "100ms", value_parser = duration)]
    read_every: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Connections {
    /// One that is kept.
    Kept,
    /// A new one for each attempt.
    Fresh,
    /// A writer with each.
    Both,
}

/// One kind of writer.
struct Kind {
    prefix: String,
    mode: Mode,
    every: Duration,
    workload: Workload,
    size: i32,
    door: Arc<Door>,
}

impl Write {
    /// Writes until it is told to stop.
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let door = Arc::new(self.connect.door()?);
        let kinds = self.kinds(&door);
        anyhow::ensure!(
            !(kinds.is_empty() && self.observe.is_empty()),
            "nothing to do: give --fresh, --kept, --transfers, --appends, --deletes, --pin or --observe"
        );
        let listener = self.tell.listener().await?;
        let needs: Vec<(Workload, i32)> = kinds.iter().map(|kind| (kind.workload, kind.size)).collect();
        let dialect = workload::prepare(&door, &self.table, &needs, PREPARE).await?;
        let (stop, stopped) = watch::channel(false);
        let mut journals = Vec::new();
        for kind in kinds {
            for number in 1..=self.writers {
                let prefix =
                    if number == 1 { kind.prefix.clone() } else { format!("{}{number}", kind.prefix) };
                let host = &kind.door.target.host;
                let journal =
                    self.tell.journal(&prefix, kind.mode, host, &self.table, (kind.workload, kind.size))?;
                journals.push(journal.clone());
                let plan = Plan::new(journal.identity.clone(), self.isolation, dialect);
                let writer = Writer { door: kind.door.clone(), journal, plan, every: kind.every };
                tokio::spawn(or_die(writer.run(stopped.clone())));
            }
        }
        if let Some(host) = &self.read_host {
            let journal = self.tell.journal("read", Mode::Read, host, &self.table, (Workload::Rows, 0))?;
            journals.push(journal.clone());
            let door = Arc::new(door.through(host));
            tokio::spawn(or_die(Reader { door, journal, every: self.read_every }.run(stopped.clone())));
        }
        let mut observers = Vec::new();
        for (index, host) in self.observe.iter().enumerate() {
            let log = self.tell.observations(&format!("observe{}", index + 1), host)?;
            observers.push(log.clone());
            let door = door.through(host).within(self.observe_timeout);
            tokio::spawn(or_die(Observer { door, log, every: self.observe_every }.run(stopped.clone())));
        }
        self.tell.serve(Control { journals, observers, door, stop }, listener).await
    }

    fn kinds(&self, door: &Arc<Door>) -> Vec<Kind> {
        let kind = |prefix: &str, mode, every, (workload, size)| Kind {
            prefix: prefix.to_owned(),
            mode,
            every,
            workload,
            size,
            door: door.clone(),
        };
        let mut kinds = Vec::new();
        for (mode, every) in [(Mode::Fresh, self.fresh), (Mode::Kept, self.kept)] {
            kinds.extend(every.map(|every| kind(mode.word(), mode, every, (Workload::Rows, 0))));
        }
        for (every, workload, size) in [
            (self.transfers, Workload::Transfers, self.accounts),
            (self.appends, Workload::Appends, self.lists),
            (self.deletes, Workload::Deletes, 0),
        ] {
            let Some(every) = every else { continue };
            for (mode, suffix, other) in
                [(Mode::Kept, "", Connections::Fresh), (Mode::Fresh, "_fresh", Connections::Kept)]
            {
                if self.connections != other {
                    kinds.push(kind(&format!("{}{suffix}", workload.word()), mode, every, (workload, size)));
                }
            }
        }
        for (index, host) in self.pin.iter().enumerate() {
            let pinned =
                kind(&format!("pin{}", index + 1), Mode::Pinned, self.pin_every, (Workload::Rows, 0));
            kinds.push(Kind { door: Arc::new(door.pinned(host)), ..pinned });
        }
        kinds
    }
}
