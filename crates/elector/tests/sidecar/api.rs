//! An API server for Leases, pods' labels, one Service and its slices. Each sidecar has a door of its own, to be broken alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What a door does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Answers.
    Up,
    /// Never answers.
    Silent,
    /// 503 to everything.
    Down,
    /// 403 to everything.
    Forbidden,
    /// 401 to everybody without this token.
    Wants(&'static str),
    /// 404 to creations, as without the namespace.
    NoNamespace,
    /// The next creation comes too late.
    CreateRace,
}

#[derive(Debug, Default)]
struct Objects {
    revision: u64,
    by_path: BTreeMap<String, Value>,
    /// Events of Leases by revision.
    events: Vec<(u64, Value)>,
    asked: Vec<(String, String)>,
}

/// The server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Api(Arc<(Mutex<Objects>, Condvar)>);

/// One address of it.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    api: Api,
    mode: Arc<Mutex<Mode>>,
    pub(crate) address: SocketAddr,
}

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases";
/// The path of the one Lease.
pub(crate) const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/web";

impl Api {
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.0.0.lock().unwrap()
    }

    /// An object.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.lock().by_path.get(path).cloned()
    }

    /// The holder that the Lease names.
    pub(crate) fn holder(&self) -> Option<String> {
        Some(self.get(LEASE)?["spec"]["holderIdentity"].as_str()?.to_owned())
    }

    /// Puts an object there, whatever was.
    pub(crate) fn put(&self, path: &str, object: Value) {
        put(&mut self.lock(), path, object);
        self.0.1.notify_all();
    }

    /// A Lease that `holder` holds with this TTL.
    pub(crate) fn hold(&self, holder: &str, seconds: u64) {
        self.put(
            LEASE,
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds}}),
        );
    }

    /// Makes the Lease free, as its last holder leaves it.
    pub(crate) fn free(&self) {
        self.put(
            LEASE,
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "web", "namespace": "shop", "annotations":
                    {"matriarch.dev/election": "{\"epoch\":1,\"renewal\":1,\"renewTime\":0}"}}, "spec": {}}),
        );
    }

    /// Deletes the Lease.
    pub(crate) fn delete(&self) {
        let mut objects = self.lock();
        objects.revision += 1;
        let revision = objects.revision;
        if let Some(mut lease) = objects.by_path.remove(LEASE) {
            lease["metadata"]["resourceVersion"] = revision.to_string().into();
            objects.events.push((revision, json!({"type": "DELETED", "object": lease})));
        }
        drop(objects);
        self.0.1.notify_all();
    }

    /// What was asked: verbs and paths, watches as `WATCH`.
    pub(crate) fn asked(&self) -> Vec<(String, String)> {
        self.lock().asked.clone()
    }

    /// Another address.
    pub(crate) fn door(&self) -> Door {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door { api: self.clone(), mode: Arc::new(Mutex::new(Mode::Up)), address };
        let served = door.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let router = Router::new().fallback(answer).with_state(served);
                axum::serve(listener, router).await.unwrap();
            });
        });
        door
    }
}

impl Door {
    /// Breaks or mends it.
    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }
}

fn put(objects: &mut Objects, path: &str, mut object: Value) {
    objects.revision += 1;
    let revision = objects.revision;
    object["metadata"]["resourceVersion"] = revision.to_string().into();
    if object["metadata"]["uid"].is_null() {
        object["metadata"]["uid"] = format!("uid-{revision}").into();
    }
    if path.starts_with(LEASES) {
        let kind = if objects.by_path.contains_key(path) { "MODIFIED" } else { "ADDED" };
        objects.events.push((revision, json!({"type": kind, "object": object})));
    }
    objects.by_path.insert(path.to_owned(), object);
}

fn refusal(code: u16, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": reason, "message": message});
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}

async fn answer(
    State(door): State<Door>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
    let watch = query.contains("watch=true");
    match door.mode() {
        Mode::Silent => std::future::pending::<()>().await,
        Mode::Down => return refusal(503, "ServiceUnavailable", "away"),
        Mode::Forbidden => {
            return refusal(
                403,
                "Forbidden",
                "leases.coordination.k8s.io \"web\" is forbidden: User cannot do that",
            );
        }
        Mode::Wants(token)
            if headers.get(header::AUTHORIZATION).is_none_or(|sent| *sent != format!("Bearer {token}")) =>
        {
            return refusal(401, "Unauthorized", "Unauthorized");
        }
        Mode::NoNamespace if method == Method::POST => {
            return refusal(404, "NotFound", "namespaces \"shop\" not found");
        }
        Mode::CreateRace if method == Method::POST => {
            door.set(Mode::Up);
            door.api.hold("other_1", 60);
        }
        _ => {}
    }
    let verb = if watch { "WATCH".to_owned() } else { method.to_string() };
    door.api.lock().asked.push((verb, path.clone()));
    if watch {
        return follow(&door, &query);
    }
    let object: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let mut objects = door.api.lock();
    let there = objects.by_path.get(&path).cloned();
    let answer = match (method.as_str(), there) {
        ("GET", None) if path == LEASES => {
            let items: Vec<Value> = objects.by_path.get(LEASE).cloned().into_iter().collect();
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList", "items": items,
                "metadata": {"resourceVersion": objects.revision.to_string()}})
        }
        ("GET", Some(object)) => object,
        ("POST", _) => {
            let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
            if objects.by_path.contains_key(&path) {
                return refusal(409, "AlreadyExists", "it is there");
            }
            put(&mut objects, &path, object);
            objects.by_path[&path].clone()
        }
        ("PUT", Some(there)) => {
            if there["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                return refusal(409, "Conflict", "it changed");
            }
            put(&mut objects, &path, object);
            objects.by_path[&path].clone()
        }
        ("PATCH", Some(mut there)) => {
            there["metadata"]["labels"] = object["metadata"]["labels"].clone();
            put(&mut objects, &path, there.clone());
            there
        }
        _ => return refusal(404, "NotFound", "there is none"),
    };
    drop(objects);
    door.api.0.1.notify_all();
    axum::Json(answer).into_response()
}

/// Events after the version that was asked for, until the door breaks or two seconds are over.
fn follow(door: &Door, query: &str) -> Response {
    let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap();
    let from: u64 = from.parse().unwrap();
    let (sender, receiver) = futures::channel::mpsc::unbounded();
    let door = door.clone();
    std::thread::spawn(move || {
        let (mutex, changed) = &*door.api.0;
        let end = std::time::Instant::now() + Duration::from_secs(2);
        let mut last = from;
        let mut objects = mutex.lock().unwrap();
        while std::time::Instant::now() < end && door.mode() != Mode::Down {
            let news: Vec<_> =
                objects.events.iter().filter(|(revision, _)| *revision > last).cloned().collect();
            if door.mode() != Mode::Silent {
                for (revision, event) in news {
                    last = revision;
                    if sender.unbounded_send(Ok::<_, std::io::Error>(event.to_string() + "\n")).is_err() {
                        return;
                    }
                }
            }
            objects = changed.wait_timeout(objects, Duration::from_millis(50)).unwrap().0;
        }
    });
    Body::from_stream(receiver).into_response()
}
