//! Stopping Postgres, cleanly or at once.
//!
//! Fencing is always immediate and means every process (§5, P7). A clean stop flushes to the standbys, so it waits for
//! nobody who cannot take the last record: archiving is held before it (P17), walsenders that are not caught up 200 ms
//! after the shutdown checkpoint are ended, and past its bound it becomes immediate. Must never end a walsender before
//! that checkpoint is written: its standby would lack the record that lets it take over.

use std::os::fd::OwnedFd;
use std::time::Duration;

use ha::{Instant, StopMode};
use postgres::Session;
use postgres::command::controldata::{self, ClusterState};
use postgres::replication::standbys::walsenders;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::clock;
use crate::driver::context::Context;
use crate::supervised::Stopped;

/// A clean stop takes a tenth of a second (P17).
const FAST: Duration = Duration::from_secs(10);
/// The checkpoint before it, so that the one during the stop is short. Clients are served meanwhile.
const CHECKPOINT: Duration = Duration::from_secs(30);
/// How long a standby may take to flush the last record.
const CAUGHT_UP: Duration = Duration::from_millis(200);
/// When a stop counts as slow, so that it is worth to look at what holds it up, and how often.
const SLOW: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_millis(50);

/// Stops Postgres.
pub(super) async fn stop(context: &Context, mode: StopMode) -> anyhow::Result<()> {
    match mode {
        StopMode::Immediate => context.postmaster.kill_all().await?,
        StopMode::Fast => fast(context).await?,
    }
    context.tracked.forget();
    Ok(())
}

async fn fast(context: &Context) -> anyhow::Result<()> {
    let began = clock::now();
    let streams = match prepare(context).await {
        Ok(streams) => streams,
        Err(error) => {
            tracing::info!(error = format!("{error:#}"), "nothing was prepared for the stop");
            Vec::new()
        }
    };
    let asked = clock::now();
    let slow = async {
        end_stragglers(context, &streams).await;
        std::future::pending::<()>().await;
    };
    let stopped = tokio::select! {
        stopped = context.postmaster.stop_fast(FAST) => stopped?,
        () = slow => Stopped::Killed,
    };
    let millis = |to: Instant, from: Instant| u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX);
    let (prepared_millis, stop_millis) = (millis(asked, began), millis(clock::now(), asked));
    match stopped {
        Stopped::Killed => {
            tracing::warn!(prepared_millis, stop_millis, "the clean stop took too long: killed")
        }
        stopped => tracing::info!(?stopped, prepared_millis, stop_millis, "stopped"),
    }
    Ok(())
}

/// Holds archiving, writes a checkpoint, and takes hold of the walsenders: a running server shows them, a stopping one
/// answers nobody.
async fn prepare(context: &Context) -> anyhow::Result<Vec<OwnedFd>> {
    let session = Session::open(&context.layout, Duration::from_secs(1)).await?.with_bound(CHECKPOINT);
    session.batch("checkpoint", "CHECKPOINT").await?;
    let streams = walsenders(&session).await?;
    Ok(streams.iter().filter_map(|sender| hold(sender.pid)).collect())
}

/// A process by a handle that never means another one, unlike its number.
fn hold(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// Ends those that are not caught up in time, once the shutdown checkpoint is in the log.
async fn end_stragglers(context: &Context, streams: &[OwnedFd]) {
    if streams.is_empty() {
        return;
    }
    tokio::time::sleep(SLOW).await;
    while !shutdown_checkpoint(context).await {
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(CAUGHT_UP).await;
    let ended = end(streams);
    tracing::warn!(ended, "walsenders that were not caught up hold the stop up: ended");
}

/// The postmaster tells walsenders to finish only after the control file says so.
async fn shutdown_checkpoint(context: &Context) -> bool {
    let Ok(binaries) = context.binaries() else { return false };
    let control = controldata::read(&binaries, &context.layout.data(), FAST).await;
    control.is_ok_and(|control| control.state == ClusterState::ShutDown)
}

/// SIGTERM, never SIGKILL: that is a crash of the server. How many were there.
fn end(streams: &[OwnedFd]) -> usize {
    let there = |stream: &&OwnedFd| pidfd_send_signal(stream, Signal::TERM) != Err(Errno::SRCH);
    streams.iter().filter(there).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_that_are_left_are_ended() {
        let mut gone = std::process::Command::new("sleep").arg("0").spawn().unwrap();
        let mut left = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = |child: &std::process::Child| i32::try_from(child.id()).unwrap();
        let streams: Vec<OwnedFd> = [&gone, &left].into_iter().filter_map(|child| hold(pid(child))).collect();
        assert_eq!(streams.len(), 2);
        gone.wait().unwrap();
        assert_eq!(end(&streams), 1);
        assert!(!left.wait().unwrap().success());
        assert_eq!(end(&streams), 0);
        assert!(hold(pid(&left)).is_none(), "no handle to what is gone");
    }
}
