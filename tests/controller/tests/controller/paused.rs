//! `paused`: the operator leaves the cluster alone and says so; afterwards it catches up.
//!
//! Turned red by: an object written while the cluster is paused.

use std::time::{Duration, Instant};

use api::names;
use serde_json::json;

use crate::agents::Agents;
use crate::operator_process::Operator;
use crate::wait;
use crate::world::{self, World};

#[tokio::test]
async fn a_paused_cluster_is_left_alone() {
    let world = World::new("paused").await;
    let operator = Operator::start(&world).await;
    let _agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}})).await;
    world.healthy("pg").await;
    operator.quiet(Duration::from_millis(500)).await;

    let since = Instant::now();
    world.edit("pg", json!({"paused": true, "instances": 4, "image": "registry.test/other:1"})).await;
    world.told("pg", "Progressing", "False", &["Paused"]).await;
    world.delete(&world::SERVICE, &names::read_service("pg")).await;
    world.merge(&world::STATEFUL_SET, "pg", &json!({"spec": {"revisionHistoryLimit": 3}})).await;
    world.merge(&world::CONFIG_MAP, &names::settings("pg"), &json!({"data": {"more": "x"}})).await;
    world.dynamic(&world::POD).delete("pg-2", &kube::api::DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let writes: Vec<String> = operator.traffic.since(since);
    // A route to a pod that is gone is emptied whatever the user wants (K3).
    // Members are told of the pause.
    let allowed = [
        "PATCH postgresclusters/pg/status",
        "PUT endpointslices/pg-pgread-ipv4",
        "PATCH configmaps/pg-settings",
    ];
    let others: Vec<&String> = writes.iter().filter(|write| !allowed.contains(&write.as_str())).collect();
    assert!(others.is_empty(), "only the status and the pause: {writes:?}");
    assert!(world.get(&world::SERVICE, &names::read_service("pg")).await.is_none());
    let set = world.get(&world::STATEFUL_SET, "pg").await.unwrap();
    assert_eq!(set["spec"]["replicas"], 3);

    // An operator that starts meanwhile leaves it alone, too.
    operator.kill();
    let other = Operator::start(&world).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(other.traffic.writes().iter().all(|write| write.path.ends_with("/status")));

    world.edit("pg", json!({"paused": null, "image": null})).await;
    world.healthy("pg").await;
    wait::until("the Service again", || async {
        world.get(&world::SERVICE, &names::read_service("pg")).await.map(drop).ok_or("none")
    })
    .await;
    assert_eq!(world.get(&world::STATEFUL_SET, "pg").await.unwrap()["spec"]["replicas"], 4);
}
