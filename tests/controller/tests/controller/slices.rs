//! K3: the operator empties a slice whose pod is gone or whose address is another's, on the very version that it looked
//! at, and touches no other.
//!
//! Turned red by: a slice replaced without its resourceVersion, a pod recognised by its name, an emptied slice that was
//! right.

use std::time::Duration;

use api::names;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use kubernetes::FieldManager;
use kubernetes::pods::PodFacts;
use kubernetes::slices::{Family, Published, Slices};
use serde_json::json;

use crate::agents::{Agents, address, route, target};
use crate::operator_process::Operator;
use crate::wait;
use crate::world::{self, World};

/// Addresses in the slice of `pgwrite`.
async fn addresses(world: &World) -> Vec<String> {
    let slice = world.get(&world::SLICE, "pg-pgwrite-ipv4").await.unwrap();
    let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
    endpoints.iter().map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned()).collect()
}

async fn emptied(world: &World) {
    wait::until("an empty slice", || async {
        let there = addresses(world).await;
        if there.is_empty() { Ok(()) } else { Err(there) }
    })
    .await;
}

/// A formed cluster whose agents act no more: nobody but the operator writes the slice.
async fn formed(name: &str, instances: u32) -> (World, Operator) {
    let world = World::new(name).await;
    let operator = Operator::start(&world).await;
    let agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}, "instances": instances})).await;
    world.healthy("pg").await;
    operator.quiet(Duration::from_millis(700)).await;
    drop(agents);
    assert_eq!(addresses(&world).await.len(), 1);
    (world, operator)
}

#[tokio::test]
async fn k3_a_slice_is_emptied_when_its_pod_is_gone() {
    let (world, _operator) = formed("gone", 1).await;
    // A pod of the same name comes at once; it is another.
    world.api::<Pod>().delete("pg-0", &DeleteParams::default()).await.unwrap();
    emptied(&world).await;
    let slice = world.get(&world::SLICE, "pg-pgwrite-ipv4").await.unwrap();
    assert_eq!(slice["metadata"]["annotations"]["matriarch.dev/epoch"], "1", "in the epoch that it had");
}

#[tokio::test]
async fn k3_a_slice_is_emptied_when_its_address_is_anothers() {
    let (world, _operator) = formed("recycled", 1).await;
    // A restarted node keeps the pod's UID and gives it another address.
    let other = json!({"status": {"podIP": "10.99.0.1", "podIPs": [{"ip": "10.99.0.1"}]}});
    let pods = world.api::<Pod>();
    pods.patch_status("pg-0", &PatchParams::default(), &Patch::Merge(&other)).await.unwrap();
    emptied(&world).await;
}

#[tokio::test]
async fn k3_a_paused_cluster_s_stale_slice_is_emptied_too() {
    let (world, _operator) = formed("pausedslice", 1).await;
    world.edit("pg", json!({"paused": true})).await;
    world.told("pg", "Progressing", "False", &["Paused"]).await;
    world.api::<Pod>().delete("pg-0", &DeleteParams::default()).await.unwrap();
    emptied(&world).await;
}

#[tokio::test]
async fn k3_a_refused_cluster_s_stale_slice_is_emptied_too() {
    let (world, _operator) = formed("refusedslice", 1).await;
    // The schema takes it, the operator does not.
    world.edit("pg", json!({"resources": {"limits": {"memory": "64Mi"}}})).await;
    world.told("pg", "SpecValid", "False", &["surely takes"]).await;
    world.api::<Pod>().delete("pg-0", &DeleteParams::default()).await.unwrap();
    emptied(&world).await;
}

#[tokio::test]
async fn k3_a_slice_that_is_right_is_left_alone() {
    let (world, operator) = formed("right", 2).await;
    let before = world.get(&world::SLICE, "pg-pgwrite-ipv4").await.unwrap();
    // Readiness decides nothing about the route: the agents do.
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let pods = world.api::<Pod>();
    pods.patch_status("pg-0", &PatchParams::default(), &Patch::Merge(&not_ready)).await.unwrap();
    world.told("pg", "Ready", "False", &["does not accept writes yet"]).await;
    operator.quiet(Duration::from_millis(700)).await;
    assert_eq!(world.get(&world::SLICE, "pg-pgwrite-ipv4").await.unwrap(), before);
}

#[tokio::test]
async fn k3_a_new_leader_s_slice_survives_an_operator_that_saw_the_old_one() {
    let (world, operator) = formed("cas", 2).await;
    let agent = world.clone();
    let which = |method: &http::Method, path: &str| {
        *method != http::Method::POST && path.ends_with("/endpointslices/pg-pgwrite-ipv4")
    };
    let (tell, told) = tokio::sync::oneshot::channel();
    // The operator has read, compared and decided; right before its write arrives, a new leader writes.
    operator.traffic.before(which, move || async move {
        let cluster = agent.cluster("pg").await;
        let pod: Pod = agent.api().get("pg-1").await.unwrap();
        let leader = target(&PodFacts::of(&pod).unwrap());
        let slices = Slices::new(agent.calls.clone(), FieldManager::AGENT);
        let route = route(&cluster, &names::write_service("pg"));
        let targets = std::slice::from_ref(&leader);
        let published = slices.publish(&route, Family::V4, ha::Epoch(2), ha::Boot(2), targets).await;
        let _ = tell.send(published.unwrap());
    });
    world.api::<Pod>().delete("pg-0", &DeleteParams::default()).await.unwrap();
    let published = tokio::time::timeout(wait::BOUND, told).await.expect("the operator wants to empty it");
    assert_eq!(published.unwrap(), Published::Written);
    let pod: Pod = world.api().get("pg-1").await.unwrap();
    let wanted = vec![address(&pod.metadata.uid.unwrap()).to_string()];
    wait::always(Duration::from_secs(7), "the new leader's slice", || async {
        let there = addresses(&world).await;
        if there == wanted { Ok(()) } else { Err(there) }
    })
    .await;
}
