//! From what is there to what people are told.

mod common;

use api::{Phase, PostgresCluster, PostgresClusterStatus};
use common::{cluster, nothing, record, with_spec};
use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kubernetes::{record::RecordRead, slices::SliceState};
use operator::{
    dereference::Observed,
    facts,
    plan::Progress,
    prepared::record_is_to_be_made,
    status::{Inputs, compute, differs},
};
use serde_json::json;

const NOW: &str = "2026-01-01T00:10:00Z";

fn led_by_pg_0() -> RecordRead {
    let member =
        |ordinal: u8| json!({"name": format!("pg-{ordinal}"), "incarnation": format!("{ordinal:016x}")});
    record(&json!({
        "phase": "running", "clusterUid": "the-first", "systemIdentifier": 7_345_000_000_000_000_001_u64,
        "epoch": 3, "timeline": 3, "history": [], "historyCount": 3,
        "leader": {"name": "pg-0", "podUid": "uid-0", "boot": "00000000000000aa",
            "incarnation": "0000000000000000", "node": "node1"},
        "electorates": [{"members": [member(1), member(2)], "acks": 1, "leader": member(0)}],
    }))
}

fn pod(ordinal: u8, ready: bool) -> Pod {
    let pod = json!({
        "metadata": {"name": format!("pg-{ordinal}"), "uid": format!("uid-{ordinal}"),
            "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"matriarch.dev/template-hash": "h"}},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    });
    serde_json::from_value(pod).expect("a pod")
}

fn slice(epoch: u64, uid: &str) -> SliceState {
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "pg-pgwrite-ipv4", "annotations": {"matriarch.dev/epoch": epoch.to_string()}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "targetRef": {"uid": uid}}],
    }))
    .expect("a slice");
    SliceState::of(slice)
}

fn healthy() -> Observed {
    Observed {
        record: led_by_pg_0(),
        pods: (0..3).map(|ordinal| pod(ordinal, true)).collect(),
        slices: vec![slice(3, "uid-0")],
        slice_names: vec!["pg-pgwrite-ipv4".to_owned()],
        ..nothing()
    }
}

fn told(cluster: &PostgresCluster, observed: &Observed, progress: Progress) -> PostgresClusterStatus {
    let now: Timestamp = NOW.parse().expect("a time");
    compute(&Inputs {
        cluster,
        observed,
        facts: &facts::facts(cluster, observed, now),
        pinned: None,
        write_service: "pg-pgwrite".to_owned(),
        progress,
        halted: None,
        refused: None,
        rotation: None,
        held: None,
        now,
    })
}

fn condition(status: &PostgresClusterStatus, type_: &str) -> (String, String) {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_).expect("the condition");
    (found.status.clone(), found.reason.clone())
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_healthy_cluster_is_ready() {
    let status = told(&cluster(common::MINIMAL), &healthy(), Progress::Settled);
    assert_eq!(condition(&status, "Ready"), is("True", "Writable"));
    assert_eq!(condition(&status, "QuorumAvailable"), is("True", "Quorum"));
    assert_eq!((status.phase, status.ready_instances), (Some(Phase::Healthy), Some(3)));
    assert_eq!(status.system_identifier.as_deref(), Some("7345000000000000001"));
    assert_eq!(status.electorates[0].members, ["pg-1", "pg-2"]);
    assert!(
        status.master.is_none() && status.epoch.is_none() && status.members.is_empty(),
        "K19: not the operator's"
    );
}

#[test]
fn ready_means_that_the_route_of_this_epoch_leads_to_this_pod() {
    let cluster = cluster(common::MINIMAL);
    for (slices, why) in [
        (vec![slice(2, "uid-0")], "the route of an older epoch"),
        (vec![slice(3, "uid-1")], "the route leads to another pod"),
        (vec![], "no route"),
    ] {
        let observed = Observed { slices, ..healthy() };
        let status = told(&cluster, &observed, Progress::Settled);
        assert_eq!(condition(&status, "Ready"), is("False", "RoutePending"), "{why}");
        assert_eq!(status.phase, Some(Phase::FailingOver), "{why}");
    }
    let mut gone = healthy();
    gone.pods.remove(0);
    let status = told(&cluster, &gone, Progress::Settled);
    assert_eq!(condition(&status, "Ready"), is("False", "NoMaster"));
}

#[test]
fn a_missing_follower_degrades() {
    let mut observed = healthy();
    observed.pods[2] = pod(2, false);
    let status = told(&cluster(common::MINIMAL), &observed, Progress::Settled);
    assert_eq!(condition(&status, "Degraded"), is("True", "MembersMissing"));
    assert_eq!(condition(&status, "QuorumAvailable"), is("True", "Quorum"), "one follower suffices");
    assert_eq!(status.phase, Some(Phase::Degraded));
}

#[test]
fn k15_a_lost_record_is_never_made_anew() {
    let claim =
        json!({"metadata": {"name": "pgdata-pg-0", "labels": {"matriarch.dev/cluster-uid": "the-first"}}});
    let lost = Observed { claims: vec![serde_json::from_value(claim).unwrap()], ..nothing() };
    assert!(record_is_to_be_made(&nothing()) && !record_is_to_be_made(&lost));
    assert_eq!(facts::identity(&lost).as_deref(), Some("the-first"));
    let status = told(&cluster(common::MINIMAL), &lost, Progress::Settled);
    assert_eq!(condition(&status, "Ready"), is("False", "RecordLost"));
    assert_eq!(status.phase, Some(Phase::NoMaster));

    let unknown = Observed { record: RecordRead::Unknown { why: "503".into(), denied: false }, ..nothing() };
    assert!(!record_is_to_be_made(&unknown), "silence is no proof");
}

#[test]
fn a_stuck_image_is_told_in_words_that_stay_the_same() {
    let waiting = |reason: &str| {
        let mut stuck = serde_json::to_value(pod(2, false)).unwrap();
        stuck["status"]["containerStatuses"] = json!([{"name": "postgres", "image": "r/p:1", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": reason, "message": "port 12345: timeout"}}}]);
        let mut observed = healthy();
        observed.pods[2] = serde_json::from_value(stuck).unwrap();
        told(&cluster(common::MINIMAL), &observed, Progress::Settled)
    };
    let (one, other) = (waiting("ErrImagePull"), waiting("ImagePullBackOff"));
    assert_eq!(one.conditions, other.conditions);
    let degraded = one.conditions.iter().find(|condition| condition.type_ == "Degraded").unwrap();
    assert_eq!(degraded.message, "not ready: pg-2 (postgres: cannot pull image r/p:1)");
}

#[test]
fn l2_a_status_that_says_nothing_new_is_not_written() {
    let mut cluster = with_spec("");
    let first = told(&cluster, &healthy(), Progress::Settled);
    assert!(differs(None, &first));
    let mut there = first.clone();
    there.master = Some("pg-0".to_owned());
    there.epoch = Some(3);
    cluster.status = Some(there);
    let again = told(&cluster, &healthy(), Progress::Settled);
    assert!(!differs(cluster.status.as_ref(), &again));
    assert!(differs(
        cluster.status.as_ref(),
        &told(&cluster, &healthy(), Progress::Rolling("pg-2".to_owned()))
    ));
}

#[test]
fn pending_restarts_are_read_from_the_leaders_report() {
    let mut cluster = with_spec("");
    let members = json!([{"name": "pg-0", "pendingRestart": true}, {"name": "pg-1", "pendingRestart": true}, {"name": "pg-2", "pendingRestart": false}]);
    cluster.status = Some(serde_json::from_value(json!({"members": members})).unwrap());
    let facts = facts::facts(&cluster, &healthy(), NOW.parse().unwrap());
    let plan = operator::plan::plan(&facts, "h", None);
    assert_eq!(plan.wishes.restart, ["pg-1".to_owned()].into());
    assert!(matches!(plan.progress, Progress::Restarting(_)));
}

#[test]
fn diverged_wal_that_a_member_keeps_is_told_until_it_is_gone() {
    let mut cluster = with_spec("");
    let mut said = |members: serde_json::Value| {
        cluster.status = Some(serde_json::from_value(json!({"members": members})).unwrap());
        let status = told(&cluster, &healthy(), Progress::Settled);
        status.conditions.into_iter().find(|condition| condition.type_ == "DivergedMember").unwrap()
    };
    let nothing = said(json!([{"name": "pg-0"}, {"name": "pg-1"}]));
    assert_eq!((nothing.status.as_str(), nothing.reason.as_str()), ("False", "NothingKept"));
    let kept = json!([{"path": "/var/lib/postgresql/data/diverged/1", "bytes": 16_777_216}]);
    let told = said(json!([{"name": "pg-0"}, {"name": "pg-1", "divergedWal": kept}]));
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("True", "DivergedWalKept"));
    assert_eq!(told.observed_generation, nothing.observed_generation);
    assert!(told.observed_generation.is_some());
    let piece = "pg-1 keeps 16777216 bytes in /var/lib/postgresql/data/diverged/1; look";
    assert!(told.message.contains(piece) && told.message.contains("then delete"), "{}", told.message);
}

#[test]
fn a_refusal_of_postgresql_names_the_field_to_correct() {
    for (why, field) in [
        ("invalid value for parameter \"work_mem\": \"x\"", "spec.postgres.parameters"),
        ("spec.postgres.hba[1]: an hba line must start with host", "spec.postgres.hba"),
        ("pg_hba.conf line 9: invalid IP mask", "spec.postgres.hba"),
    ] {
        let mut cluster = with_spec("");
        let members = json!([{"name": "pg-1", "parametersRefused": why}]);
        cluster.status = Some(serde_json::from_value(json!({"members": members})).unwrap());
        let status = told(&cluster, &healthy(), Progress::Settled);
        assert_eq!(condition(&status, "SpecValid"), is("False", "ParametersRefused"));
        let told = status.conditions.iter().find(|condition| condition.type_ == "SpecValid").unwrap();
        assert!(told.message.ends_with(&format!("correct {field}")), "{}", told.message);
    }
}
