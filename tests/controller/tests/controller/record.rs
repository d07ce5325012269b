//! A record that is gone while there may be data is never made anew: that would be an invitation to run initdb (K15, K20).
//!
//! Turned red by: a record made whenever there is none.

use std::time::Duration;

use api::names;
use kube::api::{DeleteParams, PropagationPolicy};
use kubernetes::record::{RECORD_ANNOTATION, RecordRead};
use serde_json::json;

use crate::agents::Agents;
use crate::operator_process::Operator;
use crate::wait;
use crate::world::{self, World};

/// Long enough for a reconciliation that something woke, and for the one after five seconds.
const LONG_ENOUGH: Duration = Duration::from_secs(7);

async fn stays_lost(world: &World) {
    wait::always(LONG_ENOUGH, "no record", || async {
        match world.record("pg").await {
            RecordRead::Missing => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test]
async fn a_lost_record_is_told_and_never_made_anew() {
    let world = World::new("lost").await;
    let operator = Operator::start(&world).await;
    let agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}, "instances": 2})).await;
    world.healthy("pg").await;
    drop(agents);
    world.delete(&world::LEASE, "pg").await;
    world.told("pg", "Ready", "False", &["RecordLost", "volumes exist"]).await;
    assert_eq!(world.status("pg").await.phase, Some(api::Phase::NoMaster));
    stays_lost(&world).await;

    // Nor by an operator that knows nothing of what was, nor when only the volumes are left.
    operator.kill();
    let set = world.dynamic(&world::STATEFUL_SET);
    let params =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    set.delete("pg", &params).await.unwrap();
    wait::until("the end of the pods", || async {
        let pods = world.pods("pg").await.len();
        if pods == 0 && world.get(&world::STATEFUL_SET, "pg").await.is_none() { Ok(()) } else { Err(pods) }
    })
    .await;
    let _other = Operator::start(&world).await;
    wait::until("another StatefulSet", || async {
        world.get(&world::STATEFUL_SET, "pg").await.map(drop).ok_or("none")
    })
    .await;
    stays_lost(&world).await;
    world.told("pg", "Ready", "False", &["RecordLost"]).await;
}

#[tokio::test]
async fn a_record_that_somebody_edited_is_told_and_left_alone() {
    let world = World::new("tampered").await;
    let _operator = Operator::start(&world).await;
    let agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}, "instances": 1})).await;
    world.healthy("pg").await;
    drop(agents);
    let was = world.get(&world::LEASE, "pg").await.unwrap();
    world.merge(&world::LEASE, "pg", &json!({"metadata": {"annotations": {RECORD_ANNOTATION: "{}"}}})).await;
    world.told("pg", "Ready", "False", &["RecordLost", "not usable"]).await;
    let record = was["metadata"]["annotations"][RECORD_ANNOTATION].clone();
    world
        .merge(&world::LEASE, "pg", &json!({"metadata": {"annotations": {RECORD_ANNOTATION: record}}}))
        .await;
    world.told("pg", "Ready", "True", &[]).await;
}

#[tokio::test]
async fn a_record_of_another_cluster_is_not_taken() {
    let world = World::new("foreign").await;
    let _operator = Operator::start(&world).await;
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": names::lease("pg")},
        "spec": {"holderIdentity": "somebody"}});
    let lease = serde_json::from_value(lease).unwrap();
    world.dynamic(&world::LEASE).create(&kube::api::PostParams::default(), &lease).await.unwrap();
    world.create("pg", json!({"storage": {"size": "1Gi"}, "instances": 1})).await;
    world.told("pg", "Ready", "False", &["RecordLost", "not usable"]).await;
    wait::always(LONG_ENOUGH, "the Lease of somebody", || async {
        let lease = world.get(&world::LEASE, "pg").await.unwrap();
        if lease["spec"]["holderIdentity"] == "somebody" { Ok(()) } else { Err(lease) }
    })
    .await;
}
