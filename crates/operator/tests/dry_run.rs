//! K22: a new pod template is shown to the API server before any pod gets it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{MINIMAL, cluster, validated, with_spec};
use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Client, client::Body};
use kubernetes::{Calls, record::RecordRead};
use operator::{
    apply::dry_run::refusal,
    build::{certificates::Existing, pod, stateful_set},
    dereference::Observed,
    plan::{Facts, template::Memory},
    prepared::{decide, decide_without_change},
};

type Asked = Arc<Mutex<Vec<String>>>;

fn api_server(code: u16, message: &'static str) -> (Calls, Asked) {
    let asked = Asked::default();
    let log = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let log = log.clone();
        async move {
            log.lock().unwrap().push(request.uri().to_string());
            let body = if code == 200 {
                request.into_body().collect_bytes().await.unwrap().to_vec()
            } else {
                let reason = "Invalid";
                serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code})
                    .to_string()
                    .into_bytes()
            };
            Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(body)).unwrap())
        }
    });
    (Calls::new(Client::new(service, "shop"), Duration::from_secs(1)), asked)
}

/// A cluster at rest with the template of the minimal manifest, remembered as good.
fn at_rest() -> Observed {
    let running = validated(&cluster(MINIMAL)).unwrap();
    let template = pod::template(&running);
    let memory = Memory { good: Some(template.clone()), bad: None };
    Observed {
        record: RecordRead::Missing,
        stateful_set: Some(stateful_set::build(&running, 3, template)),
        pods: Vec::new(),
        claims: Vec::new(),
        certificates: Existing::default(),
        superuser: None,
        app: None,
        templates: Some(ConfigMap { data: Some(memory.to_data()), ..ConfigMap::default() }),
        nodes: std::collections::BTreeMap::new(),
        hosts: std::collections::BTreeMap::new(),
        slices: Vec::new(),
        slice_names: Vec::new(),
    }
}

fn facts() -> Facts {
    Facts {
        cluster: "pg".into(),
        instances: 3,
        replicas: Some(3),
        members: BTreeMap::new(),
        ..Facts::default()
    }
}

#[tokio::test]
async fn k22_a_refusal_is_told_and_the_good_template_stays() {
    let observed = at_rest();
    let wanted =
        validated(&with_spec("  resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}")).unwrap();
    let decision = decide(&wanted, &observed, facts());
    let (calls, asked) = api_server(422, "requests: must be less than or equal to memory limit");
    let why = refusal(&calls, &wanted, &observed, &decision).await.unwrap().unwrap();
    assert_eq!(why, "requests: must be less than or equal to memory limit");
    let asked = asked.lock().unwrap().clone();
    assert!(asked.len() == 1 && asked[0].contains("dryRun=All"), "nothing is written: {asked:?}");

    let kept = decide_without_change(&observed, facts()).unwrap();
    let running = validated(&cluster(MINIMAL)).unwrap();
    assert_eq!(kept.in_force.template, pod::template(&running));
    assert!(kept.plan.delete.is_none() && kept.plan.wishes.handover_away.is_empty());
}

#[tokio::test]
async fn k22_what_is_in_force_is_not_asked_about_and_undoing_heals() {
    let observed = at_rest();
    let undone = validated(&cluster(MINIMAL)).unwrap();
    let (calls, asked) = api_server(422, "no");
    assert_eq!(
        refusal(&calls, &undone, &observed, &decide(&undone, &observed, facts())).await.unwrap(),
        None
    );
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn k22_no_answer_is_no_permission() {
    let observed = at_rest();
    let wanted = validated(&with_spec("  resources: {requests: {memory: 2Gi}}")).unwrap();
    let decision = decide(&wanted, &observed, facts());
    let forbidden = "statefulsets.apps \"pg\" is forbidden: User \"operator\" cannot patch resource";
    for (code, message) in [(503, "later"), (401, "Unauthorized"), (403, forbidden)] {
        let (calls, _) = api_server(code, message);
        assert!(refusal(&calls, &wanted, &observed, &decision).await.is_err(), "{code}");
    }
    let webhook = "admission webhook \"images.policy\" denied the request: not from our registry";
    let (calls, _) = api_server(403, webhook);
    assert_eq!(refusal(&calls, &wanted, &observed, &decision).await.unwrap().as_deref(), Some(webhook));
    let (calls, _) = api_server(200, "");
    assert_eq!(refusal(&calls, &wanted, &observed, &decision).await.unwrap(), None);
}
