//! An API server that is a closure, for unit tests.

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Json(u16, Value),
    Text(u16, String),
    /// Never.
    Silence,
}

impl Answer {
    pub(crate) fn status(code: u16, reason: &str) -> Self {
        Self::Json(
            code,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason,
                   "reason": reason, "code": code}),
        )
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

pub(crate) type Log = Arc<Mutex<Vec<Asked>>>;

/// A client whose every request is answered by `answer`, and the log of what was asked.
pub(crate) fn api_server(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Client, Log) {
    let log = Log::default();
    let answer = Arc::new(answer);
    let kept = log.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answer, log) = (answer.clone(), kept.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let asked = Asked {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&body).unwrap_or(Value::Null),
            };
            log.lock().unwrap().push(asked.clone());
            let (code, text) = match answer(&asked) {
                Answer::Json(code, value) => (code, value.to_string()),
                Answer::Text(code, text) => (code, text),
                Answer::Silence => std::future::pending().await,
            };
            let response = Response::builder().status(code).body(Body::from(text.into_bytes())).unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    (Client::new(service, "shop"), log)
}

/// A store of objects by path with resourceVersions, enough for compare-and-swap.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store(Arc<Mutex<(u64, BTreeMap<String, Value>)>>);

impl Store {
    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().1.get(path).cloned()
    }

    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let mut inner = self.0.lock().unwrap();
        inner.0 += 1;
        object["metadata"]["resourceVersion"] = inner.0.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{}", inner.0).into();
        }
        inner.1.insert(path.to_owned(), object);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.0.lock().unwrap().1.remove(path);
    }

    pub(crate) fn answer(&self, asked: &Asked) -> Answer {
        match asked.method.as_str() {
            "GET" => {
                self.object(&asked.path).map_or(Answer::status(404, "NotFound"), |o| Answer::Json(200, o))
            }
            "POST" => {
                let name = asked.body["metadata"]["name"].as_str().unwrap();
                let path = format!("{}/{name}", asked.path);
                if self.object(&path).is_some() {
                    return Answer::status(409, "AlreadyExists");
                }
                self.put(&path, asked.body.clone());
                Answer::Json(201, self.object(&path).unwrap())
            }
            "PUT" => {
                let Some(there) = self.object(&asked.path) else { return Answer::status(404, "NotFound") };
                let version = &asked.body["metadata"]["resourceVersion"];
                if *version != there["metadata"]["resourceVersion"] {
                    return Answer::status(409, "Conflict");
                }
                self.put(&asked.path, asked.body.clone());
                Answer::Json(200, self.object(&asked.path).unwrap())
            }
            other => panic!("{other} is not mocked"),
        }
    }
}
