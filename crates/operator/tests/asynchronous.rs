//! Asynchronous mode: no electorate is recorded, so the followers whose copies count are those that the master of this term
//! sees streaming. Pods are replaced and members cloned anew there too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use api::PostgresCluster;
use common::{MINIMAL, cluster, nothing, record};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kubernetes::nodes::NodeSeen;
use operator::{
    dereference::Observed,
    facts,
    plan::{self, Facts, replace, roll_out},
    status::{Inputs, compute},
};
use serde_json::json;

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().unwrap()
}

/// What the master of this epoch sees: who streams.
fn seen(epoch: i64, streaming: [bool; 3]) -> PostgresCluster {
    let members: Vec<_> = (0..3)
        .zip(streaming)
        .map(|(ordinal, streaming)| json!({"name": format!("pg-{ordinal}"), "streaming": streaming}))
        .collect();
    let mut cluster = cluster(MINIMAL);
    cluster.status =
        Some(serde_json::from_value(json!({"master": "pg-0", "epoch": epoch, "members": members})).unwrap());
    cluster
}

fn pod(ordinal: u8) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": format!("pg-{ordinal}"), "uid": format!("uid-{ordinal}"),
            "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"matriarch.dev/template-hash": "old"}},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap()
}

/// Three members in asynchronous mode, led by `pg-0` in epoch 3.
fn observed() -> Observed {
    let leader = json!({"name": "pg-0", "incarnation": "0000000000000000"});
    Observed {
        record: record(&json!({
            "phase": "running", "clusterUid": "the-first", "systemIdentifier": 7_u64,
            "epoch": 3, "timeline": 3, "history": [], "historyCount": 3, "leaseMillis": 15_000,
            "leader": {"name": "pg-0", "podUid": "uid-0", "boot": "00000000000000aa",
                "incarnation": "0000000000000000", "node": "node1"},
            "electorates": [{"members": [], "acks": 0, "leader": leader}],
        })),
        pods: (0..3).map(pod).collect(),
        ..nothing()
    }
}

fn facts_of(cluster: &PostgresCluster, observed: &Observed) -> Facts {
    let mut facts = facts::facts(cluster, observed, now());
    facts.replicas = Some(3);
    facts
}

#[test]
fn a_roll_out_goes_on_while_the_others_stream() {
    let facts = facts_of(&seen(3, [false, true, true]), &observed());
    let roll_out::Step::HandAway { pod, delete } = roll_out::next(&facts, "new") else { panic!("{facts:?}") };
    assert_eq!((pod.as_str(), delete.unwrap().uid.as_str()), ("pg-2", "uid-2"));

    let facts = facts_of(&seen(3, [false, false, true]), &observed());
    assert!(matches!(roll_out::next(&facts, "new"), roll_out::Step::Wait(why) if why.contains("pg-1")));
    let facts = facts_of(&seen(2, [false, true, true]), &observed());
    assert!(
        matches!(roll_out::next(&facts, "new"), roll_out::Step::Wait(_)),
        "what the master of another term saw says nothing"
    );
}

#[test]
fn k14_a_lost_node_s_member_is_cloned_anew_when_another_streams() {
    let mut observed = observed();
    let lost = json!({
        "metadata": {"name": "pg-2", "uid": "uid-2", "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"matriarch.dev/template-hash": "old"}},
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]},
    });
    observed.pods[2] = serde_json::from_value(lost).unwrap();
    let claim: PersistentVolumeClaim = serde_json::from_value(
        json!({"metadata": {"name": "pgdata-pg-2", "uid": "claim-2"}, "spec": {"volumeName": "pv"}}),
    )
    .unwrap();
    observed.claims = vec![claim];
    observed.hosts = [("pgdata-pg-2".to_owned(), ("n3".to_owned(), NodeSeen::Gone))].into();

    let facts = facts_of(&seen(3, [false, true, false]), &observed);
    let replace::Step::Replace(replacement) = replace::next(&facts) else { panic!("{facts:?}") };
    assert_eq!(replacement.claim, ("pgdata-pg-2".to_owned(), "claim-2".to_owned()));

    for (epoch, streaming) in [(3, [true, false, true]), (2, [false, true, false])] {
        let facts = facts_of(&seen(epoch, streaming), &observed);
        let held = matches!(replace::next(&facts), replace::Step::Held { why, .. } if why.contains("0 of 1"));
        assert!(held, "S6: no other copy is sure");
    }
}

#[test]
fn an_asynchronous_cluster_with_followers_is_told_to_be_one() {
    for (streaming, wanted) in [([false, true, true], "True"), ([false, false, false], "False")] {
        let (cluster, observed) = (seen(3, streaming), observed());
        let status = compute(&Inputs {
            cluster: &cluster,
            observed: &observed,
            facts: &facts_of(&cluster, &observed),
            pinned: None,
            write_service: "pg-pgwrite".to_owned(),
            progress: plan::Progress::Settled,
            halted: None,
            refused: None,
            rotation: None,
            held: None,
            now: now(),
        });
        let quorum = status.conditions.iter().find(|condition| condition.type_ == "QuorumAvailable").unwrap();
        assert_eq!(quorum.status, wanted, "{}", quorum.message);
    }
}
