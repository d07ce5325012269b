//! Stopping Postgres, cleanly or at once.
//!
//! Fencing is always immediate and means every process (§5, P7). A clean stop flushes to the standbys, so it waits for
//! nobody who cannot take the last record: archiving is held before it (P17), the stop ends when every walsender has
//! taken its leave or 200 ms after the shutdown checkpoint, and past its bound it becomes immediate. Must never end a
//! walsender before that checkpoint is durable: its standby would lack the record that lets it take over.

use std::os::fd::OwnedFd;
use std::time::Duration;

use api::DurabilityMode;
use ha::{Gate, Instant, StopMode};
use postgres::command::controldata::{self, ClusterState};
use postgres::replication::standbys::walsenders;
use postgres::settings::Access;
use postgres::{Session, archiver};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::clock;
use crate::driver::context::Context;
use crate::supervised::Stopped;

/// A clean stop takes a tenth of a second (P17).
const FAST: Duration = Duration::from_secs(10);
/// The checkpoint before it, so that the one during the stop is short. Clients are served meanwhile.
const CHECKPOINT: Duration = Duration::from_secs(30);
/// How long a running archive command may take to end.
const ARCHIVE: Duration = Duration::from_secs(2);
/// How long a standby may take to flush the last record.
const CAUGHT_UP: Duration = Duration::from_millis(200);
/// For what the server does last, when nothing rests on it.
const GOODBYE: Duration = Duration::from_millis(50);
/// When a stop counts as slow, so that it is worth to look at what holds it up, and how often.
const SLOW: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks whether a walsender has ended: a call that costs microseconds, for some hundred milliseconds.
const ENDED: Duration = Duration::from_millis(2);

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
    let how = tokio::select! {
        stopped = context.postmaster.stop_fast(FAST) => match stopped? {
            Stopped::Killed => "killed, it took too long",
            Stopped::NotRunning => "it did not run",
            Stopped::Ended(_) => "by itself",
        },
        how = hasten(context, streams) => how?,
    };
    let millis = |to: Instant, from: Instant| u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX);
    let (prepared_millis, stop_millis) = (millis(asked, began), millis(clock::now(), asked));
    tracing::info!(how, prepared_millis, stop_millis, "stopped");
    Ok(())
}

/// Holds archiving, writes a checkpoint, and takes hold of the walsenders: a running server shows them, a stopping one
/// answers nobody.
async fn prepare(context: &Context) -> anyhow::Result<Vec<OwnedFd>> {
    let session = Session::open(&context.layout, Duration::from_secs(1)).await?.with_bound(CHECKPOINT);
    let facts = context.tracked.get();
    let access = if facts.gate == Gate::Open { Access::Open } else { Access::Closed };
    let settings = context.configuration(facts.upstream.as_ref(), &facts.names, access)?;
    if let Err(error) = archiver::hold(&context.layout, &session, &settings, ARCHIVE).await {
        tracing::info!(error = telemetry::report(&error), "archiving could not be held for the stop");
    }
    session.batch("checkpoint", "CHECKPOINT").await?;
    let streams = walsenders(&session).await?;
    Ok(streams.iter().filter_map(|sender| hold(sender.pid)).collect())
}

/// A process by a handle that never means another one, unlike its number.
fn hold(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// Ends a stop that has done its work: the shutdown checkpoint is durable and the standbys that can have it have it.
/// What is left then is goodbyes, to a frozen standby or to every client that knocks, each with a TLS handshake.
///
/// Not in asynchronous mode: there a standby's position decides what is lost, and only the stop's own bound ends it.
async fn hasten(context: &Context, streams: Vec<OwnedFd>) -> anyhow::Result<&'static str> {
    if streams.is_empty() || context.settings()?.durability.mode == DurabilityMode::Async {
        return std::future::pending().await;
    }
    let mut how = "the last record is with the standbys";
    if tokio::time::timeout(SLOW, all_ended(&streams)).await.is_err() {
        shutdown_checkpoint(context).await;
        if tokio::time::timeout(CAUGHT_UP, all_ended(&streams)).await.is_err() {
            how = "a standby did not take the last record in time";
        }
    }
    shutdown_checkpoint(context).await;
    // The cumulative statistics are written about now.
    tokio::time::sleep(GOODBYE).await;
    context.postmaster.kill_all().await?;
    Ok(how)
}

async fn all_ended(streams: &[OwnedFd]) {
    while !streams.iter().all(has_ended) {
        tokio::time::sleep(ENDED).await;
    }
}

/// A handle becomes readable when its process has ended.
fn has_ended(process: &OwnedFd) -> bool {
    let mut asked = [PollFd::new(process, PollFlags::IN)];
    matches!(poll(&mut asked, Some(&Timespec::default())), Ok(1))
}

/// Waits until the control file says that the shutdown checkpoint is written. The postmaster tells walsenders to
/// finish only after that.
async fn shutdown_checkpoint(context: &Context) {
    loop {
        if let Ok(binaries) = context.binaries()
            && let Ok(control) = controldata::read(&binaries, &context.layout.data(), FAST).await
            && control.state == ClusterState::ShutDown
        {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_is_done_when_the_last_walsender_has_ended_and_not_before() {
        let mut children: Vec<_> = ["0", "60"]
            .iter()
            .map(|seconds| std::process::Command::new("sleep").arg(seconds).spawn().unwrap())
            .collect();
        let handles = children.iter().filter_map(|child| hold(i32::try_from(child.id()).unwrap()));
        let streams: Vec<OwnedFd> = handles.collect();
        assert_eq!(streams.len(), 2);
        let soon = Duration::from_millis(200);
        assert!(tokio::time::timeout(soon, all_ended(&streams[..1])).await.is_ok());
        assert!(tokio::time::timeout(soon, all_ended(&streams)).await.is_err(), "one is left");
        children[1].kill().unwrap();
        assert!(tokio::time::timeout(soon, all_ended(&streams)).await.is_ok());
        for child in &mut children {
            child.wait().unwrap();
        }
        let gone = i32::try_from(children[1].id()).unwrap();
        assert!(hold(gone).is_none(), "no handle to what is gone");
    }
}
