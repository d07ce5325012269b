//! Specs that only the operator, or the cluster, can refuse: told in `SpecValid` in a sentence that says what to write
//! instead, nothing changed, and healed by undoing the edit. What the schema refuses is a scenario of the end-to-end tests.
//!
//! Turned red by: a refusal that is not told, an object written in spite of it, a condition that stays.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agents::Agents;
use crate::dump::{difference, dump};
use crate::operator_process::{Operator, defaults};
use crate::wait;
use crate::world::{self, World};

/// An edit, pieces of what is told, and the edit that undoes it.
type Case = (Value, &'static [&'static str], Value);

fn refused() -> Vec<Case> {
    vec![
        (json!({"version": 18}), &["18 was asked for", "this cluster is 17"], json!({"version": null})),
        (
            json!({"podTemplate": {"spec": {"serviceAccountName": "admin"}}}),
            &["podTemplate: spec.serviceAccountName belongs to the operator"],
            json!({"podTemplate": null}),
        ),
        (
            json!({"podTemplate": {"spec": {"containers": "many"}}}),
            &["podTemplate: is not a pod template"],
            json!({"podTemplate": null}),
        ),
        (
            json!({"podTemplate": {"metadata": {"labels": {"role": "master"}}}}),
            &["metadata.labels role"],
            json!({"podTemplate": null}),
        ),
        (
            json!({"podTemplate": {"spec": {"containers": [{"name": "postgres", "command": ["sleep"]}]}}}),
            &["the command of container postgres"],
            json!({"podTemplate": null}),
        ),
    ]
}

#[tokio::test]
async fn a_refused_spec_changes_nothing_and_heals() {
    let world = World::new("specs").await;
    let operator = Operator::start(&world).await;
    let _agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}, "instances": 2})).await;
    world.healthy("pg").await;
    operator.quiet(Duration::from_millis(500)).await;
    let mut before = dump(&world).await;
    before.remove("PostgresCluster/pg");
    for (edit, pieces, undo) in refused() {
        let since = Instant::now();
        world.edit("pg", edit.clone()).await;
        world.told("pg", "SpecValid", "False", pieces).await;
        operator.quiet(Duration::from_millis(500)).await;
        let writes = operator.traffic.since(since);
        let others = writes.iter().filter(|write| !write.ends_with("/status") && !write.contains("events"));
        assert_eq!(others.count(), 0, "{edit}: {writes:?}");
        assert_eq!(world.condition("pg", "Ready").await.0, "True", "the cluster goes on");
        world.edit("pg", undo).await;
        world.told("pg", "SpecValid", "True", &[]).await;
        world.healthy("pg").await;
        operator.quiet(Duration::from_millis(500)).await;
        let mut after = dump(&world).await;
        after.remove("PostgresCluster/pg");
        // The generation is part of the settings.
        let differs: Vec<String> = difference(&before, &after)
            .lines()
            .filter(|line| !line.starts_with("ConfigMap/pg-settings"))
            .map(ToOwned::to_owned)
            .collect();
        assert!(differs.is_empty(), "after {edit} was undone: {differs:#?}");
    }
}

#[tokio::test]
async fn a_template_that_kubernetes_refuses_is_told_and_heals() {
    let world = World::new("template").await;
    let _operator = Operator::start(&world).await;
    let _agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}, "instances": 2})).await;
    world.healthy("pg").await;
    let bad = json!({"spec": {"containers": [{"name": "Not A Name", "image": "x"}]}});
    world.edit("pg", json!({"podTemplate": bad})).await;
    world.told("pg", "SpecValid", "False", &["Not A Name"]).await;
    assert_eq!(world.condition("pg", "Ready").await.0, "True");
    world.edit("pg", json!({"podTemplate": null})).await;
    world.told("pg", "SpecValid", "True", &[]).await;
    world.healthy("pg").await;
}

#[tokio::test]
async fn a_name_that_somebody_else_has_is_told_and_left_alone() {
    let world = World::new("taken").await;
    let operator = Operator::start(&world).await;
    let _agents = Agents::play(&world, "pg");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "orders"},
        "spec": {"selector": {"app": "orders"}, "ports": [{"port": 80}]}});
    let service = serde_json::from_value(service).unwrap();
    world.dynamic(&world::SERVICE).create(&kube::api::PostParams::default(), &service).await.unwrap();
    let was = world.get(&world::SERVICE, "orders").await.unwrap();
    let spec = json!({"storage": {"size": "1Gi"}, "instances": 1, "services": {"write": {"name": "orders"}}});
    world.create("pg", spec).await;
    world
        .told("pg", "SpecValid", "False", &["NameTaken", "Service orders", "belongs to somebody else"])
        .await;
    assert_eq!(world.get(&world::SERVICE, "orders").await.unwrap(), was);
    operator.kill();
    // An operator that knows nothing of the refusal finds the same.
    let _other = Operator::start_as(&world, defaults(), None).await;
    world.edit("pg", json!({"services": {"write": {"name": "orders-write"}}})).await;
    world.healthy("pg").await;
    world.told("pg", "SpecValid", "True", &[]).await;
    assert_eq!(world.get(&world::SERVICE, "orders").await.unwrap(), was);
    assert!(world.get(&world::SLICE, "orders-ipv4").await.is_none_or(|slice| slice["endpoints"].is_null()));
}

#[tokio::test]
async fn a_version_without_an_image_is_told_and_heals_by_another_operator() {
    let world = World::new("noimage").await;
    let operator = Operator::start(&world).await;
    let _agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}, "instances": 1, "version": 16})).await;
    world.told("pg", "SpecValid", "False", &["no image for PostgreSQL 16", "17, 18", "write image"]).await;
    assert!(world.get(&world::STATEFUL_SET, "pg").await.is_none(), "nothing is made");
    operator.kill();
    let mut newer = defaults();
    newer.images.insert(16, "registry.test/postgres:16.9".to_owned());
    let _other = Operator::start_as(&world, newer, None).await;
    let cluster = world.healthy("pg").await;
    assert_eq!(cluster.status.unwrap().pinned.unwrap().version, 16);
}

#[tokio::test]
async fn renamed_services_leave_nothing_behind() {
    let world = World::new("renamed").await;
    let _operator = Operator::start(&world).await;
    let _agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}, "instances": 2})).await;
    world.healthy("pg").await;
    world.edit("pg", json!({"services": {"write": {"name": "pgwrite"}}})).await;
    wait::until("the Service of the new name alone, with its slice", || async {
        let new = world.get(&world::SLICE, "pgwrite-ipv4").await;
        let leads = new.is_some_and(|slice| slice["endpoints"].as_array().is_some_and(|all| all.len() == 1));
        let old = (
            world.get(&world::SERVICE, "pg-pgwrite").await.is_some(),
            world.get(&world::SLICE, "pg-pgwrite-ipv4").await.is_some(),
        );
        if leads && old == (false, false) { Ok(()) } else { Err((leads, old)) }
    })
    .await;
    world.healthy("pg").await;
}
