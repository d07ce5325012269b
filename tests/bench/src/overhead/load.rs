//! pgbench: short transactions of many clients on a master.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::names::ports;
use postgres::Binaries;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::percentiles::percentile;

/// So long nothing is measured after the first connection.
const WARM: Duration = Duration::from_secs(2);
/// Threads of pgbench.
const THREADS: u32 = 2;

/// What clients saw. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seen {
    /// How many clients.
    pub(super) clients: u32,
    /// Commits per second.
    pub(super) commits: f64,
    /// Half of the transactions took no longer.
    pub(super) p50: f64,
    /// Of a hundred, ninety-nine.
    pub(super) p99: f64,
    /// The slowest.
    pub(super) max: f64,
}

/// How to drive a master.
pub(super) struct Load {
    program: PathBuf,
    scratch: PathBuf,
    seconds: u64,
}

impl Load {
    /// Logs are written to `scratch`.
    pub(super) fn new(binaries: &Binaries, scratch: &Path, seconds: u64) -> Self {
        Self { program: binaries.program("pgbench"), scratch: scratch.to_owned(), seconds }
    }

    /// Makes pgbench's tables.
    pub(super) async fn initialise(&self, at: Ipv4Addr, scale: u32) -> Result<()> {
        self.run(at, &["--initialize", "--quiet", "--scale", &scale.to_string()]).await.map(drop)
    }

    /// Drives the master there.
    pub(super) async fn drive(&self, at: Ipv4Addr, clients: u32) -> Result<Seen> {
        let (threads, count) = (clients.min(THREADS).to_string(), clients.to_string());
        let with = |seconds: u64| {
            let seconds = seconds.to_string();
            let words = ["--builtin", "simple-update", "--protocol", "prepared", "--client", &count];
            let more = ["--jobs", &threads, "--time", &seconds];
            words.iter().chain(&more).map(ToString::to_string).collect::<Vec<_>>()
        };
        let warm = with(WARM.as_secs());
        self.run(at, &warm.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        let mut words = with(self.seconds);
        words.extend(["--log".to_owned(), "--log-prefix=transactions".to_owned()]);
        let told = self.run(at, &words.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        let commits = commits(&told).with_context(|| format!("pgbench says no figure:\n{told}"))?;
        let times = self.times()?;
        ensure!(!times.is_empty(), "pgbench noted no transaction");
        let of = |percent| percentile(times.iter().copied(), percent).unwrap_or_default();
        Ok(Seen { clients, commits, p50: of(50), p99: of(99), max: of(100) })
    }

    async fn run(&self, at: Ipv4Addr, words: &[&str]) -> Result<String> {
        let done = Command::new(&self.program)
            .args(["--host", &at.to_string(), "--port", &ports::POSTGRES.to_string(), "--username", "app"])
            .args(words)
            .arg("app")
            .current_dir(&self.scratch)
            .env("PGSSLMODE", "disable")
            .env("PGGSSENCMODE", "disable")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("start pgbench")?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "pgbench: {}: {said}", done.status);
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// What each transaction took, in milliseconds; the logs are removed.
    fn times(&self) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        for entry in std::fs::read_dir(&self.scratch).context("look for pgbench's logs")? {
            let path = entry.context("look for pgbench's logs")?.path();
            let ours =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("transactions"));
            if !ours {
                continue;
            }
            let text = std::fs::read_to_string(&path).context("read pgbench's log")?;
            times.extend(text.lines().filter_map(took));
            std::fs::remove_file(&path).context("remove pgbench's log")?;
        }
        Ok(times)
    }
}

/// `client transaction microseconds script second microsecond`.
fn took(line: &str) -> Option<f64> {
    Some(line.split(' ').nth(2)?.parse::<f64>().ok()? / 1000.0)
}

/// `tps = 1234.5 (without initial connection time)`.
fn commits(told: &str) -> Option<f64> {
    told.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_says_is_understood() {
        let told = "latency average = 0.5 ms\ntps = 1973.25 (without initial connection time)\n";
        assert_eq!(commits(told), Some(1973.25));
        assert_eq!(took("0 199 2241 0 1175850568 995598"), Some(2.241));
        assert_eq!((took("skipped"), took(""), commits("")), (None, None, None));
    }
}
