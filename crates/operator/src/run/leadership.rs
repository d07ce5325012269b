//! This replica's part in the election among the operator's replicas.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use elector::{Elector, Lead, Settings};
use kubernetes::client::Clients;

/// The Lease of the election.
const LEASE: &str = "matriarch-operator";
/// How long a leader may be silent.
const TTL: Duration = Duration::from_secs(15);

/// One replica's part.
#[derive(Debug)]
pub(super) struct Seat {
    elector: Elector,
    lead: Option<Lead>,
}

impl Seat {
    /// Takes part from now on.
    pub(super) fn take_part(clients: &Clients, namespace: &str, identity: &str) -> anyhow::Result<Self> {
        let mut settings = Settings::new(LEASE, namespace, identity);
        settings.ttl = TTL;
        // The chart makes the Lease, empty, with the operator; and all that it does could be done twice without harm.
        settings.fresh_is_free = true;
        Ok(Self { elector: Elector::start(clients, settings)?, lead: None })
    }

    /// Until this replica leads.
    pub(super) async fn won(&mut self) {
        self.lead = Some(self.elector.lead().await);
    }

    /// Marks the process as ready as soon as the API server has answered; never ends.
    pub(super) fn heard(
        &self,
        ready: std::sync::Arc<AtomicBool>,
    ) -> impl Future<Output = Infallible> + use<> {
        let mut view = self.elector.view();
        async move {
            if view.wait_for(|view| view.confirmed.is_some()).await.is_ok() {
                ready.store(true, Ordering::Relaxed);
            }
            std::future::pending().await
        }
    }

    /// Until this replica may no longer act: it is told so, or its deadline passes without a renewal.
    pub(super) async fn lost(&mut self) {
        if let Some(lead) = &mut self.lead {
            lead.lost().await;
        }
    }

    /// Gives the Lease back.
    pub(super) async fn leave(self) {
        drop(self.lead);
        self.elector.leave().await;
    }
}
