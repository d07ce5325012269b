//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::clock;
use crate::control::Control;
use crate::journal::{Identity, Journal, Mode};
use crate::judge;
use crate::reader::Reader;
use crate::session::{Bounds, Door};
use crate::target::Target;
use crate::tls::Roots;
use crate::writer::{self, Writer};

/// Writes rows, keeps its own log of what was acknowledged, and judges a database by it.
#[derive(Parser)]
#[command(name = "matriarch-client", version)]
pub(crate) enum Command {
    /// Writes (and reads, with --read-host) until it is told to stop; exits 0 when told by signal.
    Write(Write),
    /// Reads only.
    Read(Read),
    /// Compares a log with the database; exits 1 when a row is lost, doubled or a phantom.
    Check(Check),
    /// Says what a log says.
    Summary(SummaryOf),
}

/// How to reach the database.
#[derive(Args)]
pub(crate) struct Connect {
    /// The environment variable that holds the URI.
    #[arg(long, default_value = "URI")]
    uri_env: String,
    /// The certificate authority, PEM.
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// Another host than the URI's, under its own name.
    #[arg(long)]
    host: Option<String>,
    /// Bound for connecting, authentication included.
    #[arg(long = "connect-timeout", default_value = "1s", value_parser = duration)]
    patience: Duration,
    /// Bound for one statement.
    #[arg(long, default_value = "10s", value_parser = duration)]
    statement_timeout: Duration,
}

impl Connect {
    fn door(&self) -> anyhow::Result<Door> {
        let uri =
            std::env::var(&self.uri_env).with_context(|| format!("environment variable {}", self.uri_env))?;
        let mut target = Target::parse(&uri)?;
        if let Some(host) = &self.host {
            target = target.through(host);
        }
        let tls = self.ca_file.as_deref().map(Roots::of).transpose()?;
        Door::new(target, tls, Bounds { connect: self.patience, statement: self.statement_timeout })
    }
}

/// Where logs go and who may ask.
#[derive(Args)]
pub(crate) struct Tell {
    /// Directory of the logs, one file per writer.
    #[arg(long, default_value = "/log")]
    log_dir: PathBuf,
    /// Where to answer HTTP.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// What writers are called besides their mode; must differ between clients of one table.
    #[arg(long, default_value = "a", value_parser = identifier)]
    id: String,
}

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
    /// The table; made when missing.
    #[arg(long, default_value = "t", value_parser = identifier)]
    table: String,
    /// Read through this host as well.
    #[arg(long)]
    read_host: Option<String>,
    /// The pace of reading.
    #[arg(long, default_value = "100ms", value_parser = duration)]
    read_every: Duration,
}

#[derive(Args)]
pub(crate) struct Read {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    tell: Tell,
    /// The pace.
    #[arg(long, default_value = "100ms", value_parser = duration)]
    every: Duration,
}

#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    connect: Connect,
    /// The log.
    #[arg(long)]
    expect: PathBuf,
}

#[derive(Args)]
pub(crate) struct SummaryOf {
    /// The log.
    log: PathBuf,
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Write(arguments) => arguments.run().await,
            Self::Read(arguments) => arguments.run().await,
            Self::Check(arguments) => {
                let door = arguments.connect.door()?;
                let (identity, attempts) = Journal::read(&arguments.expect)?;
                let until = attempts.last().map_or(0, |last| last.ended);
                let judgement = judge::judge(&door, &identity, &attempts, until).await?;
                println!("{}", serde_json::to_string(&judgement)?);
                Ok(if judgement.verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Self::Summary(arguments) => {
                let (identity, attempts) = Journal::read(&arguments.log)?;
                let until = attempts.last().map_or(0, |last| last.ended);
                println!("{}", serde_json::to_string(&judge::summarise(&identity, &attempts, 0, until))?);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl Write {
    async fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::ensure!(self.fresh.is_some() || self.kept.is_some(), "nothing to do: give --fresh or --kept");
        let door = Arc::new(self.connect.door()?);
        let listener = TcpListener::bind(self.tell.listen).await.context("listen")?;
        writer::prepare(&door, &self.table, Duration::from_secs(60)).await?;
        let (stop, stopped) = watch::channel(false);
        let mut journals = Vec::new();
        for (mode, every, prefix) in [(Mode::Fresh, self.fresh, "fresh"), (Mode::Kept, self.kept, "kept")] {
            let Some(every) = every else { continue };
            let journal = self.tell.journal(prefix, mode, &door.target.host, &self.table)?;
            journals.push(journal.clone());
            tokio::spawn(or_die(Writer { door: door.clone(), journal, every }.run(stopped.clone())));
        }
        if let Some(host) = &self.read_host {
            let journal = self.tell.journal("read", Mode::Read, host, &self.table)?;
            journals.push(journal.clone());
            let door = Arc::new(door.through(host));
            tokio::spawn(or_die(Reader { door, journal, every: self.read_every }.run(stopped)));
        }
        serve(Control { journals, door, stop }, listener).await
    }
}

impl Read {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let door = Arc::new(self.connect.door()?);
        let listener = TcpListener::bind(self.tell.listen).await.context("listen")?;
        let (stop, stopped) = watch::channel(false);
        let journal = self.tell.journal("read", Mode::Read, &door.target.host, "")?;
        let reader = Reader { door: door.clone(), journal: journal.clone(), every: self.every };
        tokio::spawn(or_die(reader.run(stopped)));
        serve(Control { journals: vec![journal], door, stop }, listener).await
    }
}

impl Tell {
    fn journal(&self, prefix: &str, mode: Mode, host: &str, table: &str) -> anyhow::Result<Arc<Journal>> {
        // A restarted container must not take its predecessor's numbers.
        let identity = Identity {
            writer: format!("{prefix}_{}_{}", self.id, clock::now()),
            mode,
            host: host.to_owned(),
            table: table.to_owned(),
        };
        Ok(Arc::new(Journal::create(&self.log_dir, identity)?))
    }
}

async fn serve(control: Control, listener: TcpListener) -> anyhow::Result<ExitCode> {
    let control = Arc::new(control);
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = control.serve(listener) => {}
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// A client that cannot write its log is worth nothing and must not go on.
async fn or_die(task: impl Future<Output = anyhow::Result<()>>) {
    if let Err(error) = task.await {
        eprintln!("error: {error:#}");
        std::process::exit(2);
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a duration such as 5ms or 2s"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err(format!("{text:?} is not a duration such as 5ms or 2s")),
    }
}

/// Names of tables and writers are made part of SQL and of file names, so they are plain.
fn identifier(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let first = text.chars().next().is_some_and(|c| c.is_ascii_lowercase());
    if first && text.len() <= 40 && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?}: write at most 40 of a-z, 0-9 and _, beginning with a letter"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Command as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn names_cannot_smuggle_sql() {
        assert_eq!(identifier("t_1").as_deref(), Ok("t_1"));
        for bad in ["", "1t", "t; drop", "T", "t\"", "../x"] {
            assert!(identifier(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert!(duration("5").is_err());
    }
}
