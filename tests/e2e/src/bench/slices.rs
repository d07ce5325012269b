//! An EndpointSlice of nobody's that changes all the time, as slices do on a busy cluster: kube-proxy works at most once a
//! second, so whatever changes next may wait for that (K4).

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::world::World;

/// Between two changes.
const PACE: Duration = Duration::from_millis(500);
/// One change takes no longer, or is forgotten.
const CALL: Duration = Duration::from_secs(5);
const NAME: &str = "elsewhere";

/// Makes a Service without pods, and its slice.
pub(crate) async fn make(world: &World) -> Result<String> {
    let namespace = world.namespace("slices").await?;
    let ports = json!([{"name": "any", "port": 5432, "protocol": "TCP"}]);
    let service: Service =
        serde_json::from_value(json!({"metadata": {"name": NAME}, "spec": {"ports": ports}}))?;
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": NAME, "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints(0),
    }))?;
    world.api(&namespace).create(&PostParams::default(), &service).await.context("make a Service")?;
    world.api(&namespace).create(&PostParams::default(), &slice).await.context("make a slice")?;
    Ok(namespace)
}

/// Changes it until it is dropped. That a change fails is no matter: the API server may be away on purpose.
pub(crate) async fn change(world: &World, namespace: &str) -> Infallible {
    let api: Api<EndpointSlice> = world.api(namespace);
    for round in 1_u64.. {
        let change = json!({"endpoints": endpoints(round)});
        let (parameters, change) = (PatchParams::default(), Patch::Merge(&change));
        let _ = tokio::time::timeout(CALL, api.patch(NAME, &parameters, &change)).await;
        tokio::time::sleep(PACE).await;
    }
    std::future::pending().await
}

/// One address of the range for documentation, another each time, so that rules must change.
fn endpoints(round: u64) -> serde_json::Value {
    json!([{"addresses": [format!("192.0.2.{}", 1 + round % 2)], "conditions": {"ready": true}}])
}
