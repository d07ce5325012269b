//! The process: clients, leader election, controllers, endpoints.
//!
//! Only the leader works. A replica that loses the leadership ends, so that nothing of its memory outlives it; the
//! Deployment starts it anew.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use futures::{StreamExt as _, future::join_all};
use kubernetes::{
    Calls,
    client::{Clients, Origin},
    events::Events,
};
use tokio_util::sync::CancellationToken;

use crate::{
    apply::Applier,
    config::{Defaults, RunArgs},
    controller::{Backoff, Context, on_error, reconcile},
    http,
    metrics::Metrics,
    watches,
};

/// Bound of one call to the API server.
const CALL: Duration = Duration::from_secs(10);
/// How long running reconciliations may take to end after a signal.
const LAST_WORK: Duration = Duration::from_secs(20);

mod leadership;

/// Runs until a signal, or until the leadership is lost (an error).
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let RunArgs {
        watch_namespaces,
        agent_image,
        default_images,
        default_major,
        leader_election_namespace,
        identity,
        http: address,
        concurrency,
    } = args;
    let defaults = Defaults::new(&default_images, default_major, agent_image).context("flags")?;
    let metrics = Metrics::default();
    let clients = Clients::build(Origin::Infer, CALL).await.context("client for the API server")?;
    let clients = clients.observed(Origin::Infer, CALL, Arc::new(metrics.clone()));
    let calls = Calls::new(clients.calls.clone(), CALL);

    let mut registry = telemetry::metrics::Metrics::new("operator", env!("CARGO_PKG_VERSION"));
    metrics.register(&mut registry);
    let ready = Arc::new(AtomicBool::new(false));
    let shown = http::Shown { ready: ready.clone(), metrics: Arc::new(registry) };
    let mut server = tokio::spawn(http::serve(address, shown));

    let signal = stopped();
    tokio::pin!(signal);
    let namespace = leader_election_namespace.unwrap_or_else(|| clients.namespace.clone());
    let mut seat = leadership::Seat::take_part(&clients, &namespace, &identity)?;
    let heard = seat.heard(ready.clone());
    tracing::info!(identity, namespace, "waiting for the leadership");
    tokio::select! {
        () = seat.won() => {}
        ended = &mut server => return ended.context("http task")?.context("serve http"),
        never = heard => match never {},
        signal = &mut signal => {
            tracing::info!(signal, "stopping");
            seat.leave().await;
            return Ok(());
        }
    }
    ready.store(true, Ordering::Relaxed);
    metrics.lead(true);

    let context = Arc::new(Context {
        events: Events::new(calls.clone(), "matriarch-operator", &identity),
        applier: Applier::new(calls),
        defaults,
        metrics: metrics.clone(),
        backoff: Backoff::default(),
    });
    let scopes: Vec<Option<String>> = if watch_namespaces.is_empty() {
        vec![None]
    } else {
        watch_namespaces.into_iter().map(Some).collect()
    };
    tracing::info!(?scopes, "working");
    let stop = CancellationToken::new();
    let controllers = join_all(scopes.into_iter().map(|scope| {
        let controller = watches::controller(&clients.watches, scope.as_deref(), concurrency);
        let stopped = stop.clone();
        controller
            .graceful_shutdown_on(async move { stopped.cancelled().await })
            .run(reconcile, on_error, context.clone())
            .for_each(|result| async move {
                use kube::runtime::controller::Error;
                match result {
                    // Failures of a reconciliation were told where they happened; kept objects outlive their cluster.
                    Ok(_) | Err(Error::ReconcilerFailed(..) | Error::ObjectNotFound(_)) => {}
                    Err(error) => tracing::warn!(error = telemetry::report(&error), "watch or queue"),
                }
            })
    }));
    tokio::pin!(controllers);
    tokio::select! {
        _ = &mut controllers => Err(anyhow::anyhow!("the controllers ended")),
        ended = &mut server => ended.context("http task")?.context("serve http"),
        () = seat.lost() => Err(anyhow::anyhow!("the leadership was lost")),
        signal = &mut signal => {
            tracing::info!(signal, "stopping");
            stop.cancel();
            // Work ends before the leadership is given up: two that work at once would only waste each other's writes,
            // but there is no need for it.
            let last_work = tokio::time::timeout(LAST_WORK, async {
                tokio::select! {
                    _ = controllers => {}
                    () = seat.lost() => {}
                }
            });
            if last_work.await.is_err() {
                tracing::warn!("reconciliations did not end in time");
            }
            seat.leave().await;
            Ok(())
        }
    }
}

async fn stopped() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
