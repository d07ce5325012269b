//! Judging logs, with the database or by themselves.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::connect::Connect;
use super::duration;
use crate::journal::{Journal, Lines, Log};
use crate::observer::observation::Observations;
use crate::report::Logs;
use crate::report::summary::summarise;

/// Compares logs with the database.
#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    connect: Connect,
    /// A log; again for more.
    #[arg(long)]
    expect: Vec<PathBuf>,
    /// A directory of logs, all of which are judged; again for more.
    #[arg(long)]
    log_dir: Vec<PathBuf>,
    /// How far the clocks of different machines may be apart; those of one machine are one.
    #[arg(long, default_value = "1s", value_parser = duration)]
    skew: Duration,
    /// How to say it.
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For programs.
    Json,
    /// For people.
    Text,
}

/// Says what a log says.
#[derive(Args)]
pub(crate) struct SummaryOf {
    /// The log.
    log: PathBuf,
}

impl Check {
    /// Judges; a failure to do so is not a verdict and has an exit code of its own.
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.judge().await {
            Ok(true) => Ok(ExitCode::SUCCESS),
            Ok(false) => Ok(ExitCode::FAILURE),
            Err(error) => {
                eprintln!("error: {error:#}");
                Ok(ExitCode::from(2))
            }
        }
    }

    /// Whether every promise was kept.
    async fn judge(&self) -> anyhow::Result<bool> {
        let mut paths = self.expect.clone();
        for directory in &self.log_dir {
            paths.extend(logs_in(directory)?);
        }
        anyhow::ensure!(!paths.is_empty(), "no logs: give --log-dir or --expect");
        let report = gather(&paths, self.skew)?.judge(&self.connect.door()?).await?;
        match self.format {
            Format::Json => println!("{}", serde_json::to_string(&report)?),
            Format::Text => println!("{report}"),
        }
        Ok(report.clean)
    }
}

/// Reads logs of every kind.
pub(crate) fn gather(paths: &[PathBuf], skew: Duration) -> anyhow::Result<Logs> {
    let (mut journals, mut observed) = (Vec::new(), Vec::new());
    for path in paths {
        let lines = Lines::read(path)?;
        match lines.first() {
            // Nothing was attempted before the first line was written.
            None => eprintln!("{} is empty", path.display()),
            Some(head) if Observations::is_one(head) => observed.push(Observations::read(path)?),
            Some(_) => journals.push(ended(Journal::read(path)?)),
        }
    }
    Ok(Logs::new(journals, observed, u64::try_from(skew.as_micros()).context("--skew")?))
}

/// The logs of a directory, by name.
pub(crate) fn logs_in(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = paths.with_context(|| format!("list {}", directory.display()))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    Ok(paths)
}

fn ended(log: Log) -> (Log, u64) {
    let until = log.attempts.last().map_or(0, |last| last.ended);
    (log, until)
}

impl SummaryOf {
    /// Says it.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (log, until) = ended(Journal::read(&self.log)?);
        println!("{}", serde_json::to_string(&summarise(&log.identity, &log.attempts, 0, until))?);
        Ok(ExitCode::SUCCESS)
    }
}
