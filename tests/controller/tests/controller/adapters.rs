//! What the adapters of `crates/kubernetes` assume of an API server, on a real one.

use ha::{Boot, Epoch, Record};
use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Pod},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kubernetes::{
    ErrorClass, FieldManager,
    client::for_watches,
    delete::{Deleted, Deletion},
    labels::{Labelled, Role, set_role},
    record::{Created, RecordRead, RecordStore, Swapped},
    slices::{Family, Published, Route, Slices, Target},
    watch::{Lookup, Watch},
};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

use crate::world::{World, administrator};

fn object<K: serde::de::DeserializeOwned>(value: serde_json::Value) -> K {
    serde_json::from_value(value).expect("an object of this kind")
}

#[tokio::test]
async fn the_record_is_swapped_on_its_version_only() {
    let world = World::new("adapters").await;
    let (calls, namespace) = (world.calls.clone(), world.namespace.as_str());
    let records = RecordStore::new(calls.clone(), namespace, "record");
    assert!(matches!(records.read().await, RecordRead::Missing));
    let made = records.create_uninitialised("cluster", BTreeMap::new(), None).await.unwrap();
    let Created::Made(first) = made else { panic!("{made:?}") };
    let leader =
        object(json!({"name": "pg-0", "podUid": "u", "boot": "1", "incarnation": "2", "node": "node-a"}));
    let next = Record { epoch: first.record().epoch.next(), leader: Some(leader), ..first.record().clone() };
    let Swapped::Won(won) = records.swap(&first, &next).await else { panic!() };
    assert_eq!(won.record().lease_uid.as_deref(), Some(won.lease_uid()));
    let other = Record { epoch: Epoch(7), ..next.clone() };
    let lost = records.swap(&first, &other).await;
    let Swapped::Lost(RecordRead::Known(there)) = lost else { panic!("{lost:?}") };
    assert_eq!(there.version(), won.version());
    let Swapped::Won(renewed) = records.renew(&won).await else { panic!() };
    assert_ne!(renewed.version(), won.version());
    assert!(matches!(records.settle(&next).await, Swapped::Won(_)));
}

#[tokio::test]
async fn labels_and_deletions_are_for_one_pod_only() {
    let world = World::new("adapters").await;
    let (calls, namespace) = (world.calls.clone(), world.namespace.as_str());
    let name = "pod";
    let pod: Pod = object(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]}}));
    let pod = calls.apply(FieldManager::OPERATOR, &pod).await.unwrap();
    let uid = pod.metadata.uid.clone().unwrap();
    let other = "11111111-1111-1111-1111-111111111111";
    let set = set_role(&calls, namespace, name, other, Some(Role::Master)).await.unwrap();
    assert_eq!(set, Labelled::OtherPod);
    assert_eq!(set_role(&calls, namespace, name, &uid, Some(Role::Master)).await.unwrap(), Labelled::Set);
    assert_eq!(set_role(&calls, namespace, "no-such-pod", &uid, None).await.unwrap(), Labelled::OtherPod);
    assert_eq!(
        calls.delete(&pod, Deletion::UNCHANGED).await.unwrap(),
        Deleted::Changed,
        "the label changed it"
    );
    let mut stranger = pod.clone();
    stranger.metadata.uid = Some(other.into());
    assert_eq!(calls.delete(&stranger, Deletion::SAME).await.unwrap(), Deleted::Changed);
    assert_eq!(calls.delete(&pod, Deletion::SAME).await.unwrap(), Deleted::Accepted);
    assert_eq!(calls.delete(&pod, Deletion::SAME).await.unwrap(), Deleted::Gone);
}

#[tokio::test]
async fn a_slice_passes_validation_and_keeps_its_epoch() {
    let world = World::new("adapters").await;
    let (calls, namespace) = (world.calls.clone(), world.namespace.as_str());
    let service = "svc";
    let route = Route {
        namespace: namespace.into(),
        service: service.to_owned(),
        port_name: "postgres".into(),
        port: 5432,
        owner: OwnerReference {
            api_version: "v1".into(),
            kind: "Namespace".into(),
            name: namespace.into(),
            // One that exists: the garbage collector deletes what belongs to nobody.
            uid: world.uid().await,
            ..OwnerReference::default()
        },
        labels: BTreeMap::new(),
    };
    let target = Target {
        pod: "pg-0".into(),
        uid: "u".into(),
        addresses: vec!["10.1.2.3".parse().unwrap(), "fd00::3".parse().unwrap()],
        node: "node-a".into(),
        zone: Some("a".into()),
    };
    let slices = Slices::new(calls, FieldManager::AGENT);
    for family in [Family::V4, Family::V6] {
        assert!(slices.create_missing(&route, family).await.unwrap());
        let targets = std::slice::from_ref(&target);
        let publish = |epoch| slices.publish(&route, family, Epoch(epoch), Boot(1), targets);
        assert_eq!(publish(2).await.unwrap(), Published::Written);
        assert_eq!(publish(2).await.unwrap(), Published::Unchanged, "nothing is defaulted behind our back");
        assert_eq!(publish(1).await.unwrap(), Published::Superseded { by: Epoch(2) });
        let seen = slices.read(&route, family).await.unwrap().unwrap();
        assert!(seen.points_only_at("u", &target.addresses));
        assert!(slices.empty(&route, family, &seen).await.unwrap());
    }
}

#[tokio::test]
async fn a_status_of_another_object_is_refused() {
    let world = World::new("adapters").await;
    let (calls, namespace) = (world.calls.clone(), world.namespace.as_str());
    let set: StatefulSet = object(json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "set", "namespace": namespace},
        "spec": {"serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
                 "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}}));
    let mut set = calls.apply(FieldManager::OPERATOR, &set).await.unwrap();
    let status = json!({"replicas": 1});
    calls.apply_status(FieldManager::AGENT_STATUS, &set, &status).await.unwrap();
    set.metadata.uid = Some("11111111-1111-1111-1111-111111111111".into());
    let error = calls.apply_status(FieldManager::AGENT_STATUS, &set, &status).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid, "{}", error.told());
    assert!(error.about("metadata.uid"));
}

#[tokio::test]
async fn a_named_watch_tells_changes_and_absence() {
    let world = World::new("adapters").await;
    let (calls, namespace) = (world.calls.clone(), world.namespace.as_str());
    let watches = kube::Client::try_from(for_watches(administrator().await)).unwrap();
    let name = "map";
    let map = |value: &str| -> ConfigMap {
        object(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace}, "data": {"k": value}}))
    };
    let watch = Watch::<ConfigMap>::named(watches.clone(), namespace, name);
    let first = watch.first(Duration::from_secs(5)).await.unwrap();
    assert_eq!(first.lookup(name), Lookup::Missing);
    let mut seen = watch.subscribe();
    let mut last = None;
    for value in ["a", "b"] {
        last = Some(calls.apply(FieldManager::OPERATOR, &map(value)).await.unwrap());
        let told = seen.wait_for(|seen| {
            matches!(seen.lookup(name), Lookup::Known(map) if map.data.as_ref().is_some_and(|data| data["k"] == value))
        });
        tokio::time::timeout(Duration::from_secs(2), told).await.unwrap().unwrap();
    }
    calls.delete(&last.unwrap(), Deletion::UNCHANGED).await.unwrap();
    let gone = seen.wait_for(|seen| seen.lookup(name) == Lookup::Missing);
    tokio::time::timeout(Duration::from_secs(2), gone).await.unwrap().unwrap();
}
