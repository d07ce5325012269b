//! Numbers of the operator. Labels are bounded words, never names of clusters.

use kubernetes::client::{Asked, Observer};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

/// Numbers that reconciliations count.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    reconciliations: Counter,
    failures: Family<Vec<(&'static str, &'static str)>, Counter>,
    leading: Gauge,
    requests: Family<Vec<(&'static str, String)>, Counter>,
    refused: Gauge,
}

impl Metrics {
    /// Puts them in the registry.
    pub fn register(&self, metrics: &mut telemetry::metrics::Metrics) {
        let registry = metrics.registry_mut();
        registry.register("operator_reconciliations", "reconciliations begun", self.reconciliations.clone());
        registry.register("operator_failures", "reconciliations failed, by kind", self.failures.clone());
        let requests = self.requests.clone();
        registry.register(
            "operator_api_requests",
            "requests to the API server, by what they asked",
            requests,
        );
        let refused = "1 while the API server refuses this replica's identity";
        registry.register("operator_identity_refused", refused, self.refused.clone());
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

impl Observer for Metrics {
    fn asked(&self, asked: Asked) {
        let status = asked.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        let labels = vec![
            ("verb", asked.verb.to_owned()),
            ("resource", asked.resource.to_owned()),
            ("status", status),
        ];
        self.requests.get_or_create(&labels).inc();
    }

    fn refused(&self, refused: bool) {
        self.refused.set(i64::from(refused));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k11_requests_are_counted_by_what_they_asked() {
        let (counted, mut registry) = (Metrics::default(), telemetry::metrics::Metrics::new("operator", "1"));
        counted.register(&mut registry);
        counted.asked(Asked { verb: "patch", resource: "secrets", status: Some(200) });
        let text = registry.text().unwrap();
        let line = r#"matriarch_operator_api_requests_total{verb="patch",resource="secrets",status="200"} 1"#;
        assert!(text.contains(line), "{text}");
    }
}
