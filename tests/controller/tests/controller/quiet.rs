//! L2: a cluster at rest costs no write. Counted at the operator's own client, Events included, for a healthy cluster, one
//! whose members do not come up, and one whose spec is refused.
//!
//! Turned red by: a status that says something new each time, an apply that is not skipped.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::agents::Agents;
use crate::operator_process::Operator;
use crate::wait;
use crate::world::{KINDS, World};

const REST: Duration = Duration::from_secs(11);

/// The versions of all objects.
async fn versions(world: &World) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for kind in KINDS {
        for object in world.all(&kind).await {
            let metadata = &object["metadata"];
            all.insert(
                format!("{} {}", kind.kind, metadata["name"]),
                metadata["resourceVersion"].to_string(),
            );
        }
    }
    all
}

async fn at_rest(operator: &Operator, whose: &str) {
    operator.quiet(Duration::from_secs(3)).await;
    let since = Instant::now();
    tokio::time::sleep(REST).await;
    let writes = operator.traffic.since(since);
    assert!(writes.is_empty(), "{whose} wrote at rest: {writes:?}");
}

#[tokio::test]
async fn l2_a_cluster_at_rest_costs_no_write() {
    let world = World::new("quiet").await;
    let operator = Operator::start(&world).await;
    let _agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}})).await;
    world.create("waiting", json!({"storage": {"size": "1Gi"}, "instances": 2})).await;
    let refused = json!({"storage": {"size": "1Gi"}, "podTemplate": {"spec": {"hostname": "x"}}});
    world.create("refused", refused).await;
    world.healthy("pg").await;
    world.told("waiting", "Degraded", "True", &["waiting-0, waiting-1"]).await;
    world.told("refused", "SpecValid", "False", &["spec.hostname"]).await;
    at_rest(&operator, "the operator").await;
    let before = versions(&world).await;
    operator.kill();

    // Another one knows nothing: it may apply every object once, which changes none.
    let other = Operator::start(&world).await;
    wait::until("every object looked at once", || async {
        let told: Vec<String> = other.traffic.writes().iter().map(crate::traffic::Write::told).collect();
        let all = ["PATCH statefulsets/pg", "PATCH statefulsets/waiting"];
        if all.iter().all(|wanted| told.iter().any(|write| write == wanted)) { Ok(()) } else { Err(told) }
    })
    .await;
    at_rest(&other, "another operator").await;
    let mut told = BTreeMap::<String, usize>::new();
    for write in other.traffic.writes() {
        *told.entry(write.told()).or_default() += 1;
    }
    assert!(told.values().all(|times| *times == 1), "each object once: {told:?}");
    assert_eq!(versions(&world).await, before, "and none of them changed");
}
