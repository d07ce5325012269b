//! The registry of a process's metrics and its text form for `/metrics`.
//!
//! Names are `matriarch_<noun>_<unit>[_total]`; labels are bounded sets (a reason, a kind), never object
//! names, so that a busy cluster does not grow the registry for ever.

use prometheus_client::{
    encoding::text::encode,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// The `Content-Type` of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The prefix of every metric's name.
pub const PREFIX: &str = "matriarch";

/// A registry that is filled while a process starts and only read afterwards.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// An empty registry with the product's prefix and `matriarch_build_info{component, version}`.
    pub fn new(component: &'static str, version: &'static str) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let build = Family::<Vec<(&'static str, &'static str)>, Gauge>::default();
        build.get_or_create(&vec![("component", component), ("version", version)]).set(1);
        registry.register("build_info", "the running component and its version, always 1", build);
        Self { registry }
    }

    /// The registry, for a component to register its families in.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Everything in the OpenMetrics text format; serve it with [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// Only when a collector of the caller's fails to encode itself.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::with_capacity(4096);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn the_text_carries_prefix_and_build() {
        let mut metrics = Metrics::new("agent", "1.2.3");
        let writes = prometheus_client::metrics::counter::Counter::<u64>::default();
        metrics.registry_mut().register("record_writes", "writes of the record", writes.clone());
        writes.inc();
        let text = metrics.text().unwrap();
        assert!(text.contains(r#"matriarch_build_info{component="agent",version="1.2.3"} 1"#), "{text}");
        assert!(text.contains("matriarch_record_writes_total 1"), "{text}");
    }
}
