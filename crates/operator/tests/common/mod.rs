#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]
//! A cluster from YAML and what is there of it, as an API server would hand them out.

use std::collections::BTreeMap;

use api::PostgresCluster;
use kubernetes::record::RecordRead;
use operator::{
    build::certificates::Existing,
    cluster::ValidatedCluster,
    config::Defaults,
    dereference::Observed,
    validate::{Refusal, validate},
};
use serde_json::{Value, json};

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

/// Nothing is there.
pub fn nothing() -> Observed {
    Observed {
        record: RecordRead::Missing,
        stateful_set: None,
        pods: Vec::new(),
        claims: Vec::new(),
        certificates: Existing::default(),
        superuser: None,
        app: None,
        templates: None,
        nodes: BTreeMap::new(),
        hosts: BTreeMap::new(),
        slices: Vec::new(),
        slice_names: Vec::new(),
    }
}

/// A record of this content, as it is read.
pub fn record(content: &Value) -> RecordRead {
    let holder = content["leader"]["name"].as_str();
    let lease = json!({
        "metadata": {"name": "pg", "uid": "lease", "resourceVersion": "1",
            "annotations": {"matriarch.dev/record": content.to_string()}},
        "spec": {"holderIdentity": holder, "leaseTransitions": content["epoch"]},
    });
    RecordRead::of(serde_json::from_value(lease).expect("a lease"))
}
