//! What can be counted and measured, under `matriarch_elector_…`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use kubernetes::client::{Asked, Observer};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use telemetry::metrics::Metrics;

use super::answer::Told;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    verb: &'static str,
    resource: &'static str,
    status: u32,
}

/// The sidecar's counters and gauges. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ElectorMetrics {
    registry: Arc<Metrics>,
    leader: Gauge,
    epoch: Gauge,
    stale: Gauge,
    age: Gauge<f64, AtomicU64>,
    candidates: Gauge,
    refused: Gauge,
    changes: Counter<u64, AtomicU64>,
    requests: Family<Request, Counter>,
    last_epoch: Arc<AtomicU64>,
}

impl Default for ElectorMetrics {
    fn default() -> Self {
        let mut metrics = Metrics::new("elector", env!("CARGO_PKG_VERSION"));
        let elector = metrics.registry_mut().sub_registry_with_prefix("elector");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            elector.register(name, help, gauge.clone());
            gauge
        };
        let leader = gauge("is_leader", "1 while this candidate may act");
        let epoch = gauge("epoch", "the epoch that was seen last");
        let stale = gauge("view_stale", "1 while nothing newer than the TTL is known");
        let candidates = gauge("candidates", "who stands for election");
        let refused = gauge("identity_refused", "1 while the API server refuses this pod's identity");
        let age = Gauge::<f64, AtomicU64>::default();
        elector.register("view_age_seconds", "since the view was surely current", age.clone());
        let changes = Counter::default();
        elector.register("leader_changes", "epochs that were seen", changes.clone());
        let requests = Family::default();
        elector.register("api_requests", "requests to the API server", requests.clone());
        Self {
            registry: Arc::new(metrics),
            leader,
            epoch,
            stale,
            age,
            candidates,
            refused,
            changes,
            requests,
            last_epoch: Arc::default(),
        }
    }
}

impl ElectorMetrics {
    /// The text of `/metrics` for what is told now.
    ///
    /// # Errors
    /// The encoder's.
    #[allow(clippy::cast_precision_loss, reason = "only shown")]
    pub fn text(&self, told: &Told) -> Result<String, std::fmt::Error> {
        self.leader.set(i64::from(told.is_leader));
        self.stale.set(i64::from(told.stale));
        self.epoch.set(told.epoch.and_then(|epoch| i64::try_from(epoch).ok()).unwrap_or(0));
        self.candidates.set(i64::try_from(told.candidates.len()).unwrap_or(i64::MAX));
        self.age.set(told.age.map_or(f64::INFINITY, |age| age as f64 / 1000.0));
        self.registry.text()
    }

    /// An epoch was seen.
    pub fn saw(&self, epoch: Option<u64>) {
        if let Some(epoch) = epoch
            && self.last_epoch.swap(epoch, Ordering::Relaxed) != epoch
        {
            self.changes.inc();
        }
    }
}

impl Observer for ElectorMetrics {
    fn asked(&self, asked: Asked) {
        let status = asked.status.map_or(0, u32::from);
        let request = Request { verb: asked.verb, resource: asked.resource, status };
        self.requests.get_or_create(&request).inc();
    }

    fn refused(&self, refused: bool) {
        self.refused.set(i64::from(refused));
    }
}
