#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]
//! A cluster from YAML, as an API server would hand it out.

use api::PostgresCluster;
use operator::{
    cluster::ValidatedCluster,
    config::Defaults,
    validate::{Refusal, validate},
};

/// The smallest manifest, with what an API server adds.
pub const MINIMAL: &str = "
apiVersion: matriarch.dev/v1alpha1
kind: PostgresCluster
metadata: {name: pg, namespace: shop, uid: 11111111-2222-3333-4444-555555555555, generation: 1}
spec:
  storage: {size: 10Gi}
";

pub fn cluster(yaml: &str) -> PostgresCluster {
    serde_yaml::from_str(yaml).expect("a cluster")
}

pub fn with_spec(spec: &str) -> PostgresCluster {
    cluster(&format!("{MINIMAL}{spec}"))
}

pub fn defaults() -> Defaults {
    Defaults {
        images: [(17, "registry.test/postgres:17".to_owned()), (18, "registry.test/postgres:18".to_owned())]
            .into(),
        major: 17,
        agent_image: "registry.test/matriarch:1".to_owned(),
    }
}

pub fn validated(cluster: &PostgresCluster) -> Result<ValidatedCluster, Refusal> {
    validate(cluster, None, &defaults(), false)
}
