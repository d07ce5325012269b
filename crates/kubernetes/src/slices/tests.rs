use super::{Family, MANAGED_BY, MANAGED_BY_LABEL, Published, Route, SERVICE_LABEL, Slices, Target};
use crate::{
    Calls, FieldManager,
    mock::{Answer, Log, Store, api_server},
};
use ha::{Boot, Epoch};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

const PATH: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/pgwrite-ipv4";

fn route() -> Route {
    Route {
        namespace: "shop".into(),
        service: "pgwrite".into(),
        port_name: "postgres".into(),
        port: 5432,
        owner: OwnerReference {
            api_version: "matriarch.dev/v1alpha1".into(),
            kind: "PostgresCluster".into(),
            name: "pg".into(),
            uid: "cluster".into(),
            ..OwnerReference::default()
        },
        labels: BTreeMap::new(),
    }
}

fn pod(ordinal: u8) -> Target {
    Target {
        pod: format!("pg-{ordinal}"),
        uid: format!("pod-{ordinal}"),
        addresses: vec![[10, 0, 0, ordinal].into()],
        node: "node-a".into(),
        zone: None,
    }
}

fn slices(
    spoil: impl Fn(&Store, &crate::mock::Asked) -> Option<Answer> + Send + Sync + 'static,
) -> (Slices, Store, Log) {
    let store = Store::default();
    let inner = store.clone();
    let (client, log) = api_server(move |asked| spoil(&inner, asked).unwrap_or_else(|| inner.answer(asked)));
    (Slices::new(Calls::new(client, Duration::from_secs(1)), FieldManager::AGENT), store, log)
}

async fn publish(slices: &Slices, epoch: u64, ordinal: u8) -> Published {
    slices.publish(&route(), Family::V4, Epoch(epoch), Boot(epoch), &[pod(ordinal)]).await.unwrap()
}

/// K2: labels, owner, port name, target and node are all there.
#[tokio::test]
async fn a_slice_carries_what_kube_proxy_and_people_need() {
    let (slices, store, _) = slices(|_, _| None);
    assert!(slices.create_missing(&route(), Family::V4).await.unwrap());
    assert!(!slices.create_missing(&route(), Family::V4).await.unwrap());
    assert!(store.object(PATH).unwrap()["endpoints"].as_array().unwrap().is_empty());
    assert_eq!(publish(&slices, 3, 1).await, Published::Written);
    let slice = store.object(PATH).unwrap();
    assert_eq!(slice["metadata"]["labels"][SERVICE_LABEL], "pgwrite");
    assert_eq!(slice["metadata"]["labels"][MANAGED_BY_LABEL], MANAGED_BY);
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "cluster");
    assert_eq!(slice["metadata"]["annotations"][super::EPOCH_ANNOTATION], "3");
    assert_eq!(slice["ports"][0]["name"], "postgres");
    assert_eq!(slice["endpoints"][0]["targetRef"]["uid"], "pod-1");
    assert_eq!(slice["endpoints"][0]["nodeName"], "node-a");
    let read = slices.read(&route(), Family::V4).await.unwrap().unwrap();
    assert!(read.points_only_at("pod-1", &pod(1).addresses));
    assert!(!read.points_only_at("pod-1", &pod(2).addresses), "K3: an address is not an identity");
}

/// S5.
#[tokio::test]
async fn an_older_leader_never_writes() {
    let (slices, store, log) = slices(|_, _| None);
    publish(&slices, 5, 2).await;
    let before = store.object(PATH);
    log.lock().unwrap().clear();
    assert_eq!(publish(&slices, 4, 0).await, Published::Superseded { by: Epoch(5) });
    let retracted = slices.retract(&route(), Family::V4, Epoch(4), Boot(4)).await.unwrap();
    assert_eq!(retracted, Published::Superseded { by: Epoch(5) });
    assert_eq!(store.object(PATH), before);
    assert!(log.lock().unwrap().iter().all(|asked| asked.method == "GET"));
}

/// S5: the epoch is compared again after every conflict.
#[tokio::test]
async fn a_leader_that_is_overtaken_between_read_and_write_stops() {
    let overtaken = AtomicU32::new(0);
    let (slices, store, _) = slices(move |store, asked| {
        if asked.method == "PUT" && overtaken.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut there = store.object(PATH).unwrap();
            there["metadata"]["annotations"][super::EPOCH_ANNOTATION] = "9".into();
            store.put(PATH, there);
        }
        None
    });
    slices.create_missing(&route(), Family::V4).await.unwrap();
    assert_eq!(publish(&slices, 4, 0).await, Published::Superseded { by: Epoch(9) });
    assert!(store.object(PATH).unwrap()["endpoints"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_conflict_with_something_harmless_is_written_again() {
    let once = AtomicU32::new(0);
    let (slices, store, _) = slices(move |store, asked| {
        if asked.method == "PUT" && once.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut there = store.object(PATH).unwrap();
            there["metadata"]["labels"]["team"] = "shop".into();
            store.put(PATH, there);
        }
        None
    });
    slices.create_missing(&route(), Family::V4).await.unwrap();
    assert_eq!(publish(&slices, 4, 0).await, Published::Written);
    assert_eq!(store.object(PATH).unwrap()["metadata"]["labels"]["team"], "shop");
}

#[tokio::test]
async fn a_deleted_slice_is_made_again_and_an_unchanged_one_left_alone() {
    let (slices, _, log) = slices(|_, _| None);
    assert_eq!(publish(&slices, 1, 0).await, Published::Written);
    log.lock().unwrap().clear();
    assert_eq!(publish(&slices, 1, 0).await, Published::Unchanged);
    assert_eq!(log.lock().unwrap().len(), 1);
    assert_eq!(publish(&slices, 2, 0).await, Published::Written, "a new epoch shows, whoever leads");
}

/// K3: the operator empties a slice whose pod is gone, under the same epoch, once.
#[tokio::test]
async fn the_operator_empties_only_what_it_looked_at() {
    let (slices, store, _) = slices(|_, _| None);
    publish(&slices, 4, 0).await;
    let seen = slices.read(&route(), Family::V4).await.unwrap().unwrap();
    publish(&slices, 5, 1).await;
    assert!(!slices.empty(&route(), Family::V4, &seen).await.unwrap());
    assert_eq!(store.object(PATH).unwrap()["endpoints"][0]["targetRef"]["uid"], "pod-1");
    let seen = slices.read(&route(), Family::V4).await.unwrap().unwrap();
    assert!(slices.empty(&route(), Family::V4, &seen).await.unwrap());
    let now = slices.read(&route(), Family::V4).await.unwrap().unwrap();
    assert!(now.is_empty());
    assert_eq!(now.epoch, Some(Epoch(5)));
}

#[tokio::test]
async fn each_family_has_its_own_slice() {
    let mut both = pod(1);
    both.addresses.push("fd00::1".parse().unwrap());
    let v6 = super::build(&route(), Family::V6, Some(Epoch(1)), None, &[both, pod(2)]);
    assert_eq!((v6.address_type.as_str(), v6.metadata.name.as_deref()), ("IPv6", Some("pgwrite-ipv6")));
    assert_eq!(v6.endpoints.len(), 1, "a pod without an address of the family is left out");
}
