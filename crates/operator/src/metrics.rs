//! Numbers of the operator. Labels are bounded words, never names of clusters.

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

/// Numbers that reconciliations count.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    reconciliations: Counter,
    failures: Family<Vec<(&'static str, &'static str)>, Counter>,
    leading: Gauge,
}

impl Metrics {
    /// Puts them in the registry.
    pub fn register(&self, metrics: &mut telemetry::metrics::Metrics) {
        let registry = metrics.registry_mut();
        registry.register("operator_reconciliations", "reconciliations begun", self.reconciliations.clone());
        registry.register("operator_failures", "reconciliations failed, by kind", self.failures.clone());
        registry.register("operator_leading", "1 while this replica works", self.leading.clone());
    }

    /// A reconciliation begins.
    pub fn reconciled(&self) {
        self.reconciliations.inc();
    }

    /// A reconciliation failed.
    pub fn failed(&self, code: &'static str) {
        self.failures.get_or_create(&vec![("kind", code)]).inc();
    }

    /// This replica works, or only waits.
    pub fn lead(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }
}
