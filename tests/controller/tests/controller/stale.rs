//! What called the operator may be old: the cache of a watch lags behind. Decisions rest on a fresh read.
//!
//! Turned red by: a reconciliation of the object that the watch delivered.

use std::sync::Arc;

use api::PostgresCluster;
use api::names;
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use kubernetes::Calls;
use operator::controller::reconcile;
use serde_json::json;

use crate::agents::Agents;
use crate::dump::{difference, dump};
use crate::operator_process::{Operator, context, defaults, tapped};
use crate::traffic::Traffic;
use crate::wait;
use crate::world::{self, World};

async fn call(calls: &Calls, old: &PostgresCluster) {
    let context = context(calls.clone(), defaults());
    // Whatever it answers, what it did is what counts.
    let _ = reconcile(Arc::new(DeserializeGuard(Ok(old.clone()))), context).await;
}

#[tokio::test]
async fn an_old_object_from_the_cache_decides_nothing() {
    let world = World::new("stale").await;
    let operator = Operator::start(&world).await;
    let agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}, "instances": 2})).await;
    let old = world.healthy("pg").await;
    world.edit("pg", json!({"instances": 3, "postgres": {"parameters": {"work_mem": "8MB"}}})).await;
    world.healthy("pg").await;
    operator.quiet(std::time::Duration::from_millis(700)).await;
    operator.kill();
    let before = dump(&world).await;

    // The spec of before.
    let traffic = Traffic::new(None);
    let calls = tapped(&traffic).await;
    call(&calls, &old).await;
    call(&calls, &PostgresCluster { status: None, ..old.clone() }).await;
    let differs = difference(&before, &dump(&world).await);
    assert!(differs.is_empty(), "an old spec was followed:\n{differs}");

    // Deleted meanwhile: nothing is made, the finalizer does its part.
    drop(agents);
    world.delete(&world::CLUSTER, "pg").await;
    wait::until("the end of the cluster", || async {
        call(&calls, &old).await;
        world.get(&world::CLUSTER, "pg").await.map_or(Ok(()), |there| Err(there["metadata"].clone()))
    })
    .await;
    wait::until("the end of what it owned", || async {
        let left = world.get(&world::SERVICE, &names::write_service("pg")).await;
        left.map_or(Ok(()), |there| Err(there["metadata"].clone()))
    })
    .await;
    let writes = traffic.writes().len();
    call(&calls, &old).await;
    assert_eq!(traffic.writes().len(), writes, "nothing is written for a cluster that is gone");
    assert!(world.get(&world::STATEFUL_SET, "pg").await.is_none());

    // Another one of the same name: what is made belongs to it, not to the one in the cache.
    let other = world.create("pg", json!({"storage": {"size": "1Gi"}, "instances": 2})).await;
    wait::until("the StatefulSet of the other", || async {
        call(&calls, &old).await;
        let set = world.get(&world::STATEFUL_SET, "pg").await;
        let owner = set.map(|set| set["metadata"]["ownerReferences"][0]["uid"].clone());
        if owner == Some(json!(other.uid())) { Ok(()) } else { Err(owner) }
    })
    .await;
    let Ok(Some(settings)) =
        calls.get::<k8s_openapi::api::core::v1::ConfigMap>(&world.namespace, &names::settings("pg")).await
    else {
        panic!("no settings")
    };
    let settings = api::MemberSettings::from_json(&settings.data.unwrap()[names::SETTINGS_KEY]).unwrap();
    assert_eq!(settings.cluster.identity, old.uid().unwrap(), "the data is that of the first (K15)");
    assert_eq!(settings.cluster.uid, other.uid().unwrap());
}
