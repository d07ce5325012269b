//! What is written is written on the version that was read, and what is as it was left is not written at all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{MINIMAL, cluster, validated};
use http::{Method, Request, Response};
use k8s_openapi::api::core::v1::Secret;
use kube::{Client, client::Body};
use kubernetes::{Calls, ErrorClass};
use operator::{apply::Applier, build::secrets};
use serde_json::{Value, json};

/// One Secret, refused to whoever writes it on another version; the versions that were asked for.
fn api_server(there: &Secret) -> (Calls, Arc<Mutex<Vec<Value>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, there) = (asked.clone(), serde_json::to_value(there).unwrap());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, there) = (log.clone(), there.clone());
        async move {
            let write = request.method() == Method::PATCH;
            let body = request.into_body().collect_bytes().await.unwrap();
            let (code, answer) = if write {
                let wanted: Value = serde_json::from_slice(&body).unwrap();
                let version = wanted["metadata"]["resourceVersion"].clone();
                log.lock().unwrap().push(version.clone());
                if version == there["metadata"]["resourceVersion"] {
                    (200, there)
                } else {
                    (409, json!({"kind": "Status", "status": "Failure", "reason": "Conflict", "code": 409}))
                }
            } else {
                (200, there)
            };
            let body = Body::from(answer.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    (Calls::new(Client::new(service, "shop"), Duration::from_secs(1)), asked)
}

#[tokio::test]
async fn a_password_that_was_changed_since_it_was_read_is_not_put_back() {
    let cluster = validated(&cluster(MINIMAL)).unwrap();
    let version = |version: &str| {
        let mut secret = secrets::app(&cluster, None, "CA");
        secret.metadata.resource_version = Some(version.to_owned());
        secret
    };
    let (read, changed) = (version("7"), version("8"));
    let (calls, asked) = api_server(&changed);
    let applier = Applier::new(calls);
    let error = applier.apply(&cluster, &secrets::app(&cluster, Some(&read), "CA")).await.unwrap_err();
    assert_eq!(error.call().unwrap().class(), ErrorClass::Conflict, "it looks again");

    // L2: read anew, written once.
    for _ in 0..3 {
        applier.apply(&cluster, &secrets::app(&cluster, Some(&changed), "CA")).await.unwrap();
    }
    assert_eq!(*asked.lock().unwrap(), ["7", "8"]);
}
