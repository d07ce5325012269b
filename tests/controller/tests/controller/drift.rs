//! Whatever somebody deletes or edits of a cluster comes back, or is told in a condition. At rest the operator looks again
//! only every ten minutes, so what comes back sooner was seen by its watch.
//!
//! Turned red by: a kind that is not watched, an apply that is skipped when somebody else changed the object.

use std::time::Duration;

use api::names;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, PropagationPolicy};
use serde_json::{Value, json};

use crate::agents::Agents;
use crate::dump::{difference, dump};
use crate::operator_process::Operator;
use crate::wait;
use crate::world::{self, Kind, World};

const SETTLED: Duration = Duration::from_millis(400);

async fn formed(name: &str) -> (World, Operator, Agents) {
    let world = World::new(name).await;
    let operator = Operator::start(&world).await;
    let agents = Agents::play(&world, "pg");
    world.create("pg", json!({"storage": {"size": "1Gi"}})).await;
    world.healthy("pg").await;
    operator.quiet(SETTLED).await;
    (world, operator, agents)
}

/// Waits until the namespace is as it was.
async fn as_before(world: &World, operator: &Operator, before: &crate::dump::Dump, what: &str) {
    wait::until(&format!("the state before {what}"), || async {
        let mut now = dump(world).await;
        // The claim of a member too many stays, as always.
        now.remove("PersistentVolumeClaim/pgdata-pg-3");
        let differs = difference(before, &now);
        if differs.is_empty() { Ok(()) } else { Err(differs) }
    })
    .await;
    operator.quiet(SETTLED).await;
}

fn uid(object: Option<&Value>) -> Option<String> {
    object?["metadata"]["uid"].as_str().map(ToOwned::to_owned)
}

#[tokio::test]
async fn a_deleted_object_comes_back() {
    let (world, operator, _agents) = formed("deleted").await;
    let before = dump(&world).await;
    let objects: [(Kind, String); 15] = [
        (world::SERVICE_ACCOUNT, names::member_role("pg")),
        (world::ROLE, names::member_role("pg")),
        (world::ROLE_BINDING, names::member_role("pg")),
        (world::SECRET, names::superuser_secret("pg")),
        (world::SECRET, names::app_secret("pg")),
        (world::SECRET, names::server_secret("pg")),
        (world::SECRET, names::peer_secret("pg")),
        (world::SECRET, names::client_secret("pg")),
        (world::SERVICE, names::headless_service("pg")),
        (world::SERVICE, names::write_service("pg")),
        (world::SERVICE, names::read_service("pg")),
        (world::SLICE, format!("{}-ipv4", names::write_service("pg"))),
        (world::CONFIG_MAP, names::settings("pg")),
        (world::CONFIG_MAP, names::last_good_template("pg")),
        (world::BUDGET, names::disruption_budget("pg")),
    ];
    for (kind, name) in objects {
        let was = uid(world.get(&kind, &name).await.as_ref());
        assert!(was.is_some(), "{} {name} is there", kind.kind);
        world.delete(&kind, &name).await;
        wait::until(&format!("another {} {name}", kind.kind), || async {
            let is = uid(world.get(&kind, &name).await.as_ref());
            if is.is_some() && is != was { Ok(()) } else { Err(is) }
        })
        .await;
        as_before(&world, &operator, &before, &format!("{} {name} was deleted", kind.kind)).await;
    }
}

#[tokio::test]
async fn an_edited_object_is_put_right() {
    let (world, operator, _agents) = formed("edited").await;
    let before = dump(&world).await;
    let edits: Vec<(Kind, String, Value)> = vec![
        (world::SERVICE_ACCOUNT, names::member_role("pg"), json!({"automountServiceAccountToken": true})),
        (world::ROLE, names::member_role("pg"), json!({"rules": []})),
        (world::ROLE_BINDING, names::member_role("pg"), json!({"subjects": []})),
        (world::SECRET, names::app_secret("pg"), json!({"stringData": {"uri": "postgresql://elsewhere"}})),
        (world::SECRET, names::server_secret("pg"), json!({"stringData": {"ca.crt": "nobody"}})),
        (
            world::SERVICE,
            names::write_service("pg"),
            json!({"spec": {"ports": [{"name": "postgres", "port": 5432, "protocol": "TCP", "targetPort": 9999}]}}),
        ),
        (world::SERVICE, names::headless_service("pg"), json!({"spec": {"publishNotReadyAddresses": false}})),
        (world::SERVICE, names::read_service("pg"), json!({"metadata": {"ownerReferences": null}})),
        (world::SERVICE, names::read_service("pg"), json!({"metadata": {"labels": null}})),
        (world::CONFIG_MAP, names::settings("pg"), json!({"data": {names::SETTINGS_KEY: "{}"}})),
        (world::BUDGET, names::disruption_budget("pg"), json!({"spec": {"maxUnavailable": 3}})),
        (
            world::STATEFUL_SET,
            names::stateful_set("pg"),
            json!({"spec": {"updateStrategy": {"type": "RollingUpdate"}}}),
        ),
        (world::STATEFUL_SET, names::stateful_set("pg"), json!({"spec": {"replicas": 4}})),
        (
            world::STATEFUL_SET,
            names::stateful_set("pg"),
            json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}}),
        ),
        (world::STATEFUL_SET, names::stateful_set("pg"), json!({"metadata": {"ownerReferences": null}})),
    ];
    let mut left = Vec::new();
    for (kind, name, edit) in edits {
        let was = world.get(&kind, &name).await.unwrap();
        world.merge(&kind, &name, &edit).await;
        let now = world.get(&kind, &name).await.unwrap();
        assert!(
            now["metadata"]["resourceVersion"] != was["metadata"]["resourceVersion"],
            "{edit} changed nothing"
        );
        let what = format!("{} {name} was edited: {edit}", kind.kind);
        let put_right = async { as_before(&world, &operator, &before, &what).await };
        if tokio::time::timeout(Duration::from_secs(20), put_right).await.is_err() {
            let differs = difference(&before, &dump(&world).await);
            left.push(format!("{what}\n{differs}"));
            world
                .merge(
                    &kind,
                    &name,
                    &json!({"metadata": {"labels": was["metadata"]["labels"]}, "spec": was["spec"]}),
                )
                .await;
        }
    }
    assert!(left.is_empty(), "not put right:\n{}", left.join("\n"));
}

#[tokio::test]
async fn a_selector_on_a_route_is_taken_away() {
    let (world, operator, _agents) = formed("selector").await;
    let before = dump(&world).await;
    for service in [names::write_service("pg"), names::read_service("pg")] {
        let selector = json!({"spec": {"selector": {"matriarch.dev/cluster": "pg"}}});
        world.merge(&world::SERVICE, &service, &selector).await;
        // Kubernetes' own: it is there for an instant, or was deleted before this looks.
        as_before(&world, &operator, &before, &format!("{service} got a selector")).await;
        let strange = || async {
            let slices = world.dynamic(&world::SLICE);
            let of = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
            let names: Vec<_> =
                slices.list(&of).await.unwrap().items.into_iter().map(|slice| slice.name_any()).collect();
            let ours = names.len() == 1 && names[0] == format!("{service}-ipv4");
            if ours { Ok(()) } else { Err(names) }
        };
        wait::until("only the slice of the operator's own", strange).await;
        wait::always(Duration::from_secs(2), "only that slice", strange).await;
    }
}

#[tokio::test]
async fn a_password_of_the_users_own_is_kept_and_followed() {
    let (world, operator, _agents) = formed("password").await;
    world.merge(&world::SECRET, "pg-app", &json!({"stringData": {"password": "s/e:c@r et"}})).await;
    wait::until("an address with the password", || async {
        let secret: k8s_openapi::api::core::v1::Secret = world.api().get("pg-app").await.unwrap();
        let data = secret.data.unwrap();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        assert_eq!(text("password"), "s/e:c@r et");
        if text("uri").contains("app:s%2Fe%3Ac%40r%20et@") { Ok(()) } else { Err(text("uri")) }
    })
    .await;
    operator.quiet(SETTLED).await;
}

#[tokio::test]
async fn a_lost_authority_is_replaced_and_members_of_both_know_each_other() {
    let (world, operator, _agents) = formed("authority").await;
    world.delete(&world::SECRET, &names::ca_secret("pg")).await;
    wait::until("a bundle of both authorities", || async {
        let secret: k8s_openapi::api::core::v1::Secret =
            world.api().get(&names::peer_secret("pg")).await.unwrap();
        let text = String::from_utf8(secret.data.unwrap()["ca.crt"].0.clone()).unwrap();
        let count = text.matches("BEGIN CERTIFICATE").count();
        if count == 2 { Ok(()) } else { Err(count) }
    })
    .await;
    operator.quiet(SETTLED).await;
    world.healthy("pg").await;
}

#[tokio::test]
async fn a_deleted_stateful_set_comes_back_and_takes_its_pods_again() {
    let (world, operator, _agents) = formed("set").await;
    let before = dump(&world).await;
    let pods = |pods: Vec<k8s_openapi::api::core::v1::Pod>| {
        pods.into_iter().map(|pod| pod.metadata.uid).collect::<Vec<_>>()
    };
    let first = pods(world.pods("pg").await);
    let orphan =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    let was = uid(world.get(&world::STATEFUL_SET, "pg").await.as_ref());
    world.dynamic(&world::STATEFUL_SET).delete("pg", &orphan).await.unwrap();
    let back = || async {
        let is = uid(world.get(&world::STATEFUL_SET, "pg").await.as_ref());
        if is.is_some() && is != was { Ok(()) } else { Err(is) }
    };
    wait::until("another StatefulSet", back).await;
    as_before(&world, &operator, &before, "the StatefulSet was deleted without its pods").await;
    assert_eq!(pods(world.pods("pg").await), first, "no pod was replaced");

    let was = uid(world.get(&world::STATEFUL_SET, "pg").await.as_ref());
    let all = DeleteParams::default();
    world.dynamic(&world::STATEFUL_SET).delete("pg", &all).await.unwrap();
    wait::until("another StatefulSet", || async {
        let is = uid(world.get(&world::STATEFUL_SET, "pg").await.as_ref());
        if is.is_some() && is != was { Ok(()) } else { Err(is) }
    })
    .await;
    wait::until("other pods", || async {
        let now = pods(world.pods("pg").await);
        let other = now.len() == 3 && now.iter().all(|uid| !first.contains(uid));
        if other { Ok(()) } else { Err(now) }
    })
    .await;
    wait::until("another epoch of the record that was", || async {
        let kubernetes::record::RecordRead::Known(record) = world.record("pg").await else {
            return Err(None);
        };
        if record.record().epoch.0 == 2 { Ok(()) } else { Err(Some(record.record().clone())) }
    })
    .await;
    world.healthy("pg").await;
}
