//! This replica's part in the election among the operator's replicas.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use ha::election::Settings;
use kubernetes::{
    Calls,
    client::Clients,
    clock::boottime,
    leader_election::{Election, Leadership},
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// The Lease of the election.
const LEASE: &str = "matriarch-operator";
/// Bound of one call, for which [`Settings::DEFAULT`] is made.
const CALL: Duration = Duration::from_secs(2);

/// One replica's part.
#[derive(Debug)]
pub(super) struct Seat {
    told: watch::Receiver<Leadership>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Seat {
    /// Takes part from now on. The random suffix tells two starts of one pod apart.
    pub(super) fn take_part(clients: &Clients, namespace: &str, identity: &str) -> Self {
        let identity = format!("{identity}_{:08x}", rand::random::<u32>());
        let calls = Calls::new(clients.calls.clone(), CALL);
        let election = Election::new(calls, namespace, LEASE, identity, Settings::DEFAULT);
        let (tell, told) = watch::channel(Leadership::Standby { holder: None });
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move { election.run(tell, stopped.cancelled_owned()).await });
        Self { told, stop, task }
    }

    /// Until this replica leads.
    pub(super) async fn won(&self) {
        let mut told = self.told.clone();
        if told.wait_for(Leadership::leads).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Marks the process as ready as soon as the API server has answered; never ends.
    pub(super) async fn heard(&self, ready: &AtomicBool) -> Infallible {
        let mut told = self.told.clone();
        let heard =
            |told: &Leadership| told.leads() || matches!(told, Leadership::Standby { holder: Some(_) });
        if told.wait_for(heard).await.is_ok() {
            ready.store(true, Ordering::Relaxed);
        }
        std::future::pending().await
    }

    /// Until this replica may no longer act: it is told so, or its deadline passes without a renewal.
    pub(super) async fn lost(&mut self) {
        loop {
            let until = match &*self.told.borrow_and_update() {
                Leadership::Leading { until, .. } => *until,
                Leadership::Standby { .. } => return,
            };
            let left = until.since(boottime());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                changed = self.told.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Gives the Lease back, within the bound of a call.
    pub(super) async fn leave(self) {
        self.stop.cancel();
        if tokio::time::timeout(2 * CALL, self.task).await.is_err() {
            tracing::warn!("the leadership was not released in time");
        }
    }
}
