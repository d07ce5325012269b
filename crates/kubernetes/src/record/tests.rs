use super::{Created, RecordRead, RecordStore, Snapshot, Swapped};
use crate::{
    Calls,
    mock::{Answer, Log, Store, api_server},
};
use ha::{Epoch, LeaderId, Phase, Record, Timeline};
use std::{collections::BTreeMap, time::Duration};

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/pg";

/// A store, and a record store whose writes pass through `spoil` first.
fn record(
    spoil: impl Fn(&Store, &crate::mock::Asked) -> Option<Answer> + Send + Sync + 'static,
) -> (RecordStore, Store, Log) {
    let store = Store::default();
    let inner = store.clone();
    let (client, log) = api_server(move |asked| spoil(&inner, asked).unwrap_or_else(|| inner.answer(asked)));
    let calls = Calls::new(client, Duration::from_millis(100));
    (RecordStore::new(calls, "shop", "pg"), store, log)
}

async fn made(records: &RecordStore) -> Snapshot {
    match records.create_uninitialised("cluster-uid", BTreeMap::new(), None).await.unwrap() {
        Created::Made(snapshot) => snapshot,
        Created::Existed(read) => panic!("{read:?}"),
    }
}

fn led_by(name: &str, on: &Record) -> Record {
    let leader: LeaderId = serde_json::from_value(serde_json::json!({
        "name": name, "podUid": "pod-uid", "boot": "01", "incarnation": "02", "node": "node-a",
    }))
    .unwrap();
    Record {
        phase: Phase::Running,
        epoch: on.epoch.next(),
        timeline: Timeline(1),
        leader: Some(leader),
        ..on.clone()
    }
}

#[tokio::test]
async fn a_swap_on_the_snapshot_wins_and_its_spec_mirrors_the_record() {
    let (records, store, _) = record(|_, _| None);
    assert!(matches!(records.read().await, RecordRead::Missing));
    let first = made(&records).await;
    let wanted = led_by("pg-0", first.record());
    let Swapped::Won(won) = records.swap(&first, &wanted).await else { panic!() };
    assert_eq!(won.record().lease_uid.as_deref(), Some(won.lease_uid()));
    let spec = store.object(PATH).unwrap()["spec"].clone();
    assert_eq!((spec["holderIdentity"].as_str(), spec["leaseTransitions"].as_i64()), (Some("pg-0"), Some(1)));
    assert!(spec["strategy"].is_null() && spec["preferredHolder"].is_null(), "K20");

    let Swapped::Won(renewed) = records.renew(&won).await else { panic!() };
    assert_ne!(renewed.version(), won.version());
    assert_eq!(renewed.record(), won.record());
    let again = store.object(PATH).unwrap()["spec"].clone();
    assert_eq!(again["acquireTime"], spec["acquireTime"], "a renewal acquires nothing");
}

#[tokio::test]
async fn of_two_swaps_on_one_snapshot_one_loses_and_sees_the_other() {
    let (records, _, _) = record(|_, _| None);
    let first = made(&records).await;
    assert!(matches!(records.swap(&first, &led_by("pg-0", first.record())).await, Swapped::Won(_)));
    let lost = records.swap(&first, &led_by("pg-1", first.record())).await;
    let Swapped::Lost(RecordRead::Known(there)) = lost else { panic!("{lost:?}") };
    assert_eq!(there.record().leader.as_ref().unwrap().name.0, "pg-0");
}

/// §2: a 409 may be our own earlier success.
#[tokio::test]
async fn a_conflict_with_our_own_success_is_a_win() {
    let (records, _, _) = record(|store, asked| {
        (asked.method == "PUT").then(|| {
            store.answer(asked);
            Answer::status(409, "Conflict")
        })
    });
    let first = made(&records).await;
    let swapped = records.swap(&first, &led_by("pg-0", first.record())).await;
    let Swapped::Won(won) = swapped else { panic!("{swapped:?}") };
    assert_eq!(won.record().epoch, Epoch(1));
}

/// §2: timeouts, 401, 403, 429 and 5xx prove nothing, and a later read settles it either way.
#[tokio::test(start_paused = true)]
async fn a_swap_without_an_answer_is_unknown_until_it_is_settled() {
    for answer in [Answer::Silence, Answer::status(504, "Timeout"), Answer::status(401, "Unauthorized")] {
        for applied in [false, true] {
            let spoiled = answer.clone();
            let (records, _, _) = record(move |store, asked| {
                (asked.method == "PUT").then(|| {
                    if applied {
                        store.answer(asked);
                    }
                    spoiled.clone()
                })
            });
            let first = made(&records).await;
            let wanted = led_by("pg-0", first.record());
            assert!(matches!(records.swap(&first, &wanted).await, Swapped::Unknown { .. }));
            match records.settle(&wanted).await {
                Swapped::Won(_) => assert!(applied),
                Swapped::Lost(RecordRead::Known(there)) => {
                    assert!(!applied && there.version() == first.version(), "not yet");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn refused_content_is_told_with_the_servers_words() {
    let (records, _, _) = record(|_, asked| (asked.method == "PUT").then(|| Answer::status(422, "too long")));
    let first = made(&records).await;
    let Swapped::Refused { why } = records.swap(&first, first.record()).await else { panic!() };
    assert_eq!(why, "too long");
}

#[tokio::test]
async fn a_deleted_record_is_missing_and_never_created_by_a_swap() {
    let (records, _, log) =
        record(|_, asked| (asked.method != "POST").then(|| Answer::status(404, "NotFound")));
    let first = made(&records).await;
    assert!(matches!(records.swap(&first, first.record()).await, Swapped::Lost(RecordRead::Missing)));
    let posts = log.lock().unwrap().iter().filter(|asked| asked.method == "POST").count();
    assert_eq!(posts, 1, "only the operator's own");
}

/// K20: annotation and spec tell the same, and the Lease is the very one.
#[tokio::test]
async fn tampering_is_told() {
    let (records, store, _) = record(|_, _| None);
    let first = made(&records).await;
    let Swapped::Won(_) = records.swap(&first, &led_by("pg-0", first.record())).await else { panic!() };
    let good = store.object(PATH).unwrap();
    let spoilt = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut lease = good.clone();
        change(&mut lease);
        store.put(PATH, lease);
    };
    let changes: [&dyn Fn(&mut serde_json::Value); 5] = [
        &|lease| lease["spec"]["holderIdentity"] = "pg-1".into(),
        &|lease| lease["spec"]["leaseTransitions"] = 7.into(),
        &|lease| lease["metadata"]["uid"] = "another".into(),
        &|lease| lease["metadata"]["annotations"] = serde_json::json!({}),
        &|lease| lease["metadata"]["annotations"][super::RECORD_ANNOTATION] = "{".into(),
    ];
    for change in changes {
        spoilt(change);
        let read = records.read().await;
        assert!(matches!(read, RecordRead::Tampered { .. }), "{read:?}");
    }
}

#[tokio::test]
async fn what_others_put_on_the_lease_stays() {
    let (records, store, _) = record(|_, _| None);
    made(&records).await;
    let mut lease = store.object(PATH).unwrap();
    lease["metadata"]["labels"] = serde_json::json!({"team": "shop"});
    lease["metadata"]["finalizers"] = serde_json::json!(["matriarch.dev/record"]);
    store.put(PATH, lease);
    let RecordRead::Known(now) = records.read().await else { panic!() };
    let Swapped::Won(_) = records.swap(&now, &led_by("pg-0", now.record())).await else { panic!() };
    let lease = store.object(PATH).unwrap();
    assert_eq!(lease["metadata"]["labels"]["team"], "shop");
    assert_eq!(lease["metadata"]["finalizers"][0], "matriarch.dev/record");
}

#[tokio::test]
async fn creating_twice_finds_the_first() {
    let (records, _, _) = record(|_, _| None);
    let first = made(&records).await;
    let again = records.create_uninitialised("another-uid", BTreeMap::new(), None).await.unwrap();
    let Created::Existed(RecordRead::Known(there)) = again else { panic!("{again:?}") };
    assert_eq!(there.record().cluster_uid, "cluster-uid");
    assert_eq!(there.version(), first.version());
}
