//! The agent proper: wires channel, server, supervisor and driver together.
//!
//! A single thread: the agent waits for others nearly all the time, and the file system calls it makes are short.

use anyhow::Context;
use kubernetes::client::Origin;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::net::TcpListener;

use crate::config::Config;
use crate::driver;
use crate::http::{self, StatusHandle};
use crate::peers::{self, Channel};
use crate::supervised::{Postmaster, Progress};

/// Runs the agent until the supervisor ends it. `api_server`: where to find it; in pods their service account says so.
///
/// # Errors
/// What keeps it from starting, or the driver's error; the supervisor starts it again.
pub fn run(config: Config, api_server: Origin) -> anyhow::Result<()> {
    // An agent without its supervisor must not act on anything.
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie the agent to its supervisor")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(config, api_server))
}

async fn serve(config: Config, api_server: Origin) -> anyhow::Result<()> {
    let postmaster = Postmaster::connect(Progress::default()).await.context("no supervisor")?;
    let status = StatusHandle::new();
    let listener = TcpListener::bind(config.http_listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.http_listen))?;
    let served = status.clone();
    tokio::spawn(async move {
        if let Err(error) = http::serve(listener, served).await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    let options = peers::Options {
        listen: config.peer_listen,
        member: config.member(),
        boot: postmaster.boot(),
        cluster: config.cluster.clone(),
        namespace: config.namespace.clone(),
        port: api::names::ports::PEER,
        live_port: Some(api::names::ports::LIVE),
    };
    let channel =
        Channel::bind(options).await.with_context(|| format!("cannot listen on {}", config.peer_listen))?;
    tracing::info!(member = %config.pod_name, boot = %postmaster.boot(), "the agent runs");
    tokio::select! {
        ended = driver::run(config, api_server, postmaster.clone(), channel, status) => ended.context("the driver ended"),
        () = postmaster.supervisor_gone() => anyhow::bail!("the supervisor is gone"),
    }
}
