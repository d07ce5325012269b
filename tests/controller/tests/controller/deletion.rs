//! K15: a deletion is ordered. Pods stop first, while everything that they need for it is there; what was promised to stay
//! stays and is adopted; nothing of somebody else's goes along.
//!
//! Turned red by: a Secret or record deleted before the last pod is gone, a kept object with an owner.

use std::time::Duration;

use api::names;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use kubernetes::record::RecordRead;
use serde_json::{Value, json};

use crate::agents::Agents;
use crate::operator_process::Operator;
use crate::wait;
use crate::world::{self, World};

async fn formed(name: &str, policy: &str) -> (World, Operator, Agents) {
    let world = World::new(name).await;
    let operator = Operator::start(&world).await;
    let agents = Agents::play(&world, "pg");
    let spec = json!({"storage": {"size": "1Gi"}, "instances": 2, "deletionPolicy": policy});
    world.create("pg", spec).await;
    world.healthy("pg").await;
    operator.quiet(Duration::from_millis(500)).await;
    (world, operator, agents)
}

/// A pod that takes its time to stop.
async fn slow(world: &World, pod: &str, slow: bool) {
    let finalizers = if slow { json!(["tests.matriarch.dev/slow"]) } else { Value::Null };
    let patch = json!({"metadata": {"finalizers": finalizers}});
    world.api::<Pod>().patch(pod, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

async fn ended(world: &World) {
    wait::until("the end of the cluster", || async {
        world.get(&world::CLUSTER, "pg").await.map_or(Ok(()), |there| Err(there["metadata"].clone()))
    })
    .await;
}

async fn secret(world: &World, name: &str, key: &str) -> Option<Value> {
    world.get(&world::SECRET, name).await.map(|secret| secret["data"][key].clone())
}

/// What an orderly stop needs.
async fn all_there(world: &World) {
    for (kind, name) in [
        (world::LEASE, names::lease("pg")),
        (world::ROLE, names::member_role("pg")),
        (world::ROLE_BINDING, names::member_role("pg")),
        (world::SERVICE_ACCOUNT, names::member_role("pg")),
        (world::CONFIG_MAP, names::settings("pg")),
        (world::SECRET, names::superuser_secret("pg")),
        (world::SECRET, names::peer_secret("pg")),
        (world::SECRET, names::client_secret("pg")),
        (world::SECRET, names::ca_secret("pg")),
        (world::SLICE, "pg-pgwrite-ipv4".to_owned()),
        (world::CLAIM, "pgdata-pg-0".to_owned()),
        (world::CLAIM, "pgdata-pg-1".to_owned()),
    ] {
        let there = world.get(&kind, &name).await;
        assert!(
            there.is_some_and(|there| there["metadata"]["deletionTimestamp"].is_null()),
            "{} {name} is there while a member stops",
            kind.kind
        );
    }
}

#[tokio::test]
async fn k15_pods_stop_before_anything_that_they_need_goes() {
    for policy in ["Delete", "Retain"] {
        let (world, operator, _agents) = formed("order", policy).await;
        slow(&world, "pg-1", true).await;
        world.delete(&world::CLUSTER, "pg").await;
        wait::until("a member that stops", || async {
            let pods = world.pods("pg").await;
            let stopping = pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some());
            let names: Vec<String> = pods.iter().map(kube::ResourceExt::name_any).collect();
            if stopping && names == ["pg-1"] { Ok(()) } else { Err((names, stopping)) }
        })
        .await;
        // Longer than the operator's pause between two looks.
        wait::always(Duration::from_secs(6), "a cluster that waits", || async {
            world.get(&world::CLUSTER, "pg").await.map(drop).ok_or("gone")
        })
        .await;
        all_there(&world).await;
        slow(&world, "pg-1", false).await;
        ended(&world).await;
        let left = |kind, name: &'static str| {
            let world = world.clone();
            async move {
                let there = world.get(&kind, name).await;
                there.is_some_and(|there| there["metadata"]["deletionTimestamp"].is_null())
            }
        };
        let kept = policy == "Retain";
        for (kind, name) in [
            (world::LEASE, "pg"),
            (world::SECRET, "pg-ca"),
            (world::SECRET, "pg-superuser"),
            (world::SECRET, "pg-app"),
            (world::CLAIM, "pgdata-pg-0"),
            (world::CLAIM, "pgdata-pg-1"),
        ] {
            assert_eq!(left(kind, name).await, kept, "{policy}: {} {name}", kind.kind);
        }
        let told: Vec<String> = operator.traffic.writes().iter().map(crate::traffic::Write::told).collect();
        let place = |what: &str| told.iter().position(|write| write == what);
        let set = place("DELETE statefulsets/pg").expect("the StatefulSet goes");
        assert_eq!(told.last().map(String::as_str), Some("PATCH postgresclusters/pg"), "the finalizer last");
        if policy == "Delete" {
            let claim = place("DELETE persistentvolumeclaims/pgdata-pg-0").unwrap();
            let lease = place("DELETE leases/pg").unwrap();
            assert!(set < claim && claim < lease, "volumes before the record: {told:?}");
        }
    }
}

#[tokio::test]
async fn k15_what_was_retained_is_adopted() {
    let (world, _operator, agents) = formed("adopt", "Retain").await;
    let first = world.cluster("pg").await;
    let kept = (
        secret(&world, "pg-app", "password").await,
        secret(&world, "pg-superuser", "password").await,
        secret(&world, "pg-ca", "ca.key").await,
    );
    let RecordRead::Known(was) = world.record("pg").await else { panic!("no record") };
    drop(agents);
    world.delete(&world::CLUSTER, "pg").await;
    ended(&world).await;

    let _agents = Agents::play(&world, "pg");
    let second = world.create("pg", json!({"storage": {"size": "1Gi"}, "instances": 2})).await;
    assert_ne!(first.uid(), second.uid());
    let second = world.healthy("pg").await;
    let RecordRead::Known(is) = world.record("pg").await else { panic!("no record") };
    assert_eq!(is.record().cluster_uid, was.record().cluster_uid);
    assert_eq!(is.record().system_identifier, was.record().system_identifier);
    assert_eq!(is.lease_uid(), was.lease_uid(), "the record itself");
    assert_eq!(is.record().epoch.0, was.record().epoch.0 + 1);
    let now = (
        secret(&world, "pg-app", "password").await,
        secret(&world, "pg-superuser", "password").await,
        secret(&world, "pg-ca", "ca.key").await,
    );
    assert_eq!(now, kept);
    assert_eq!(second.status.unwrap().system_identifier.as_deref(), Some("7000000000000000001"));
}

#[tokio::test]
async fn k15_volumes_without_a_record_are_told_and_not_initialised() {
    let (world, _operator, agents) = formed("norecord", "Retain").await;
    drop(agents);
    world.delete(&world::CLUSTER, "pg").await;
    ended(&world).await;
    world.delete(&world::LEASE, "pg").await;
    world.create("pg", json!({"storage": {"size": "1Gi"}, "instances": 2})).await;
    world.told("pg", "Ready", "False", &["RecordLost", "nothing is initialised"]).await;
    assert_eq!(world.status("pg").await.phase, Some(api::Phase::NoMaster));
    wait::always(Duration::from_secs(6), "no record", || async {
        match world.record("pg").await {
            RecordRead::Missing => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test]
async fn what_belongs_to_somebody_else_stays() {
    let (world, _operator, _agents) = formed("others", "Delete").await;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "pgdata-pg-9"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = world.dynamic(&world::CLAIM);
    let claim = serde_json::from_value(claim).unwrap();
    claims.create(&kube::api::PostParams::default(), &claim).await.unwrap();
    let finalizers = json!({"metadata": {"finalizers": [names::FINALIZER, "tests.matriarch.dev/other"]}});
    world.merge(&world::CLUSTER, "pg", &finalizers).await;
    world.delete(&world::CLUSTER, "pg").await;
    wait::until("only the other finalizer", || async {
        let there = world.get(&world::CLUSTER, "pg").await.unwrap();
        let left = there["metadata"]["finalizers"].clone();
        if left == json!(["tests.matriarch.dev/other"]) { Ok(()) } else { Err(left) }
    })
    .await;
    assert!(world.get(&world::CLAIM, "pgdata-pg-9").await.is_some(), "a claim without our label");
    world.merge(&world::CLUSTER, "pg", &json!({"metadata": {"finalizers": null}})).await;
    ended(&world).await;
}
