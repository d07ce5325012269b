//! Reading only.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::watch;

use super::connect::Connect;
use super::duration;
use super::tell::{Tell, or_die};
use crate::attempt::{Mode, Workload};
use crate::control::Control;
use crate::reader::Reader;

/// Reads only.
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

impl Read {
    /// Reads until it is told to stop.
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let door = Arc::new(self.connect.door()?);
        let listener = self.tell.listener().await?;
        let (stop, stopped) = watch::channel(false);
        let journal = self.tell.journal("read", Mode::Read, &door.target.host, "", (Workload::Rows, 0))?;
        let reader = Reader { door: door.clone(), journal: journal.clone(), every: self.every };
        tokio::spawn(or_die(reader.run(stopped)));
        self.tell.serve(Control { journals: vec![journal], observers: vec![], door, stop }, listener).await
    }
}
