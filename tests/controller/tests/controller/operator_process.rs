//! One life of an operator: its own runtime in this process, so that killing it leaves nothing of it running.
//!
//! It is the operator's own wiring of watches, reconciliation and error policy; only the election of a leader is left
//! out, which [`crate::election`] tests with real processes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::client::ClientBuilder;
use kubernetes::Calls;
use kubernetes::client::{for_calls, for_watches};
use kubernetes::events::Events;
use operator::apply::Applier;
use operator::config::Defaults;
use operator::controller::{Backoff, Context, on_error, reconcile};
use operator::metrics::Metrics;
use tokio::runtime::Runtime;

use crate::traffic::Traffic;
use crate::wait;
use crate::world::{CALL, World, operators};

/// The images that an operator under test gives to clusters that name none.
pub(crate) fn defaults() -> Defaults {
    Defaults {
        images: [
            (17, "registry.test/postgres:17.6".to_owned()),
            (18, "registry.test/postgres:18.1".to_owned()),
        ]
        .into(),
        major: 17,
        agent_image: "registry.test/matriarch:1".to_owned(),
    }
}

/// An operator that looks after one namespace. Dropping it kills it.
pub(crate) struct Operator {
    pub(crate) traffic: Traffic,
    runtime: Option<Runtime>,
}

impl Operator {
    /// Starts one.
    pub(crate) async fn start(world: &World) -> Self {
        Self::start_as(world, defaults(), None).await
    }

    /// Starts one with these defaults that lives for so many writes.
    pub(crate) async fn start_as(world: &World, defaults: Defaults, writes: Option<usize>) -> Self {
        let config = operators().await;
        let traffic = Traffic::new(writes);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("operator")
            .enable_all()
            .build()
            .unwrap();
        {
            let _inside = runtime.enter();
            let calls = ClientBuilder::try_from(for_calls(config.clone(), CALL)).unwrap();
            let calls = Calls::new(calls.with_layer(&traffic).build(), CALL);
            let watches = ClientBuilder::try_from(for_watches(config)).unwrap().with_layer(&traffic).build();
            let controller = operator::watches::controller(&watches, Some(&world.namespace), 4);
            let context = context(calls, defaults);
            runtime.spawn(controller.run(reconcile, on_error, context).for_each(|_| async {}));
        }
        Self { traffic, runtime: Some(runtime) }
    }

    /// Waits until it has written nothing for this long.
    pub(crate) async fn quiet(&self, during: Duration) {
        let started = Instant::now();
        wait::until(&format!("no write for {during:?}"), || async {
            let last = self.traffic.writes().last().map_or(started, |write| write.at.max(started));
            if last.elapsed() >= during { Ok(()) } else { Err(self.traffic.since(started)) }
        })
        .await;
    }

    /// Waits until it crashed.
    pub(crate) async fn crashed(&self) {
        wait::until("the crash", || async {
            if self.traffic.crashed() { Ok(()) } else { Err(self.traffic.writes()) }
        })
        .await;
    }

    /// Kills it between two instructions.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.end();
    }
}

/// What reconciliations need, for one that is called by a test itself.
pub(crate) fn context(calls: Calls, defaults: Defaults) -> Arc<Context> {
    Arc::new(Context {
        events: Events::new(calls.clone(), "matriarch-operator", "under-test"),
        applier: Applier::new(calls),
        defaults,
        metrics: Metrics::default(),
        backoff: Backoff::default(),
    })
}

/// Calls of an operator that a test drives itself, behind `traffic`.
pub(crate) async fn tapped(traffic: &Traffic) -> Calls {
    let config = for_calls(operators().await, CALL);
    Calls::new(ClientBuilder::try_from(config).unwrap().with_layer(traffic).build(), CALL)
}
