//! Where logs go and who may ask; and how a run ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{duration, identifier};
use crate::attempt::{Identity, Mode, Workload};
use crate::clock;
use crate::control::Control;
use crate::journal::{Durability, Journal};
use crate::observer::observation::Observations;

/// Where logs go and who may ask.
#[derive(Args)]
pub(crate) struct Tell {
    /// Directory of the logs, one file per writer, reader and observer; made when missing.
    #[arg(long, default_value = "/log")]
    log_dir: PathBuf,
    /// When a line of a log is on stable storage: `never` for when the kernel sees fit (it survives this program, not the
    /// machine), `each` for before the next attempt, or at most a time such as 100ms.
    #[arg(long, default_value = "never", value_parser = durability)]
    sync: Durability,
    /// Where to answer HTTP, or `off`.
    #[arg(long, default_value = "0.0.0.0:8080", value_parser = listen)]
    listen: Listen,
    /// What writers are called besides their mode; must differ between clients of one table.
    #[arg(long, default_value = "a", value_parser = identifier)]
    id: String,
    /// End by itself after this time.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listen {
    Off,
    At(SocketAddr),
}

fn listen(text: &str) -> Result<Listen, String> {
    match text {
        "off" => Ok(Listen::Off),
        _ => text.parse().map(Listen::At).map_err(|_| format!("{text:?} is neither address:port nor off")),
    }
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "never" => Ok(Durability::Kernel),
        "each" => Ok(Durability::Each),
        _ => duration(text).map(Durability::Every),
    }
}

impl Tell {
    /// Takes the port before anything is written.
    pub(super) async fn listener(&self) -> anyhow::Result<Option<TcpListener>> {
        match self.listen {
            Listen::Off => Ok(None),
            Listen::At(address) => {
                TcpListener::bind(address).await.map(Some).with_context(|| format!("listen at {address}"))
            }
        }
    }

    /// Begins a log.
    pub(super) fn journal(
        &self,
        prefix: &str,
        mode: Mode,
        host: &str,
        table: &str,
        (workload, size): (Workload, i32),
    ) -> anyhow::Result<Arc<Journal>> {
        let (host, table) = (host.to_owned(), table.to_owned());
        let identity = Identity { writer: self.name(prefix), mode, host, table, workload, size };
        self.directory()?;
        Ok(Arc::new(Journal::create(&self.log_dir, self.sync, identity)?))
    }

    /// Begins the log of an observer.
    pub(super) fn observations(&self, prefix: &str, host: &str) -> anyhow::Result<Arc<Observations>> {
        self.directory()?;
        Ok(Arc::new(Observations::create(&self.log_dir, self.sync, &self.name(prefix), host)?))
    }

    /// A restarted container must not take its predecessor's numbers.
    fn name(&self, prefix: &str) -> String {
        format!("{prefix}_{}_{}", self.id, clock::now())
    }

    fn directory(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.log_dir).with_context(|| format!("make {}", self.log_dir.display()))
    }

    /// Answers until it is time or a signal says so, then ends everything in order and says what the logs say.
    pub(super) async fn serve(
        &self,
        control: Control,
        listener: Option<TcpListener>,
    ) -> anyhow::Result<ExitCode> {
        let control = Arc::new(control);
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let serving = async {
            match listener {
                Some(listener) => control.clone().serve(listener).await,
                None => std::future::pending().await,
            }
        };
        let time = async {
            match self.time {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = serving => {}
            () = time => {}
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        control.stop().await?;
        for summary in control.summaries(None, None) {
            println!(
                "{} ok {} error {} unknown {} longest gap {} ms",
                summary.identity.writer, summary.ok, summary.error, summary.unknown, summary.longest_gap.ms
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A client that cannot write its log is worth nothing and must not go on.
pub(super) async fn or_die(task: impl Future<Output = anyhow::Result<()>>) {
    if let Err(error) = task.await {
        eprintln!("error: {error:#}");
        std::process::exit(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_where_and_when() {
        assert_eq!(listen("off"), Ok(Listen::Off));
        assert!(listen("127.0.0.1:0").is_ok() && listen("everywhere").is_err());
        assert_eq!(durability("each"), Ok(Durability::Each));
        assert_eq!(durability("50ms"), Ok(Durability::Every(Duration::from_millis(50))));
        assert!(durability("often").is_err());
    }
}
