//! As much of an API server as agents ask for: named objects, lists and watches by name, compare-and-swap, merge patches,
//! server-side apply of a status.
//!
//! One server is one namespace of one cluster. A write that changes nothing keeps its resourceVersion, as the real one's
//! does. Must never be stricter about what it forgets than the real one: a watch never misses an event.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The server. Cheap to clone; ends with the runtime.
#[derive(Clone)]
pub struct ApiServer {
    /// Where it listens.
    pub at: SocketAddr,
    store: Arc<Store>,
}

struct Store {
    state: Mutex<Content>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Content {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    events: Vec<Event>,
    /// What each writer wrote last, by verb and resource.
    said: BTreeMap<(String, String), String>,
}

#[derive(Clone)]
struct Event {
    version: u64,
    kind: &'static str,
    resource: String,
    name: String,
    object: Value,
}

/// One request, taken apart.
struct Asked<'a> {
    resource: &'a str,
    name: Option<&'a str>,
    query: BTreeMap<String, String>,
}

impl ApiServer {
    /// Serves from now on.
    pub async fn start(at: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind(at).await.unwrap();
        let store = Arc::new(Store { state: Mutex::new(Content::default()), version: watch::Sender::new(0) });
        let this = Self { at: listener.local_addr().unwrap(), store: Arc::clone(&store) };
        let router = Router::new().fallback(answer).with_state(store);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        this
    }

    /// The object as it is.
    pub fn get(&self, resource: &str, name: &str) -> Option<Value> {
        let content = self.store.state.lock().unwrap();
        content.objects.get(&(resource.to_owned(), name.to_owned())).cloned()
    }

    /// Makes or replaces an object, as an operator or a user would.
    pub fn put(&self, resource: &str, object: Value) {
        self.store.put(resource, object);
    }

    /// What this writer wrote last with this verb on this resource, and what it changed.
    pub fn said(&self, writer: &str, what: &str) -> Option<String> {
        let content = self.store.state.lock().unwrap();
        content.said.get(&(writer.to_owned(), what.to_owned())).cloned()
    }
}

impl Store {
    fn put(&self, resource: &str, mut object: Value) -> Value {
        let mut content = self.state.lock().unwrap();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let key = (resource.to_owned(), name.clone());
        let there = content.objects.get(&key).cloned();
        let next = content.version + 1;
        let kept = |field: &str, new: Value| match &there {
            Some(there) => there["metadata"][field].clone(),
            None => new,
        };
        object["metadata"]["uid"] = match &object["metadata"]["uid"] {
            Value::String(uid) => uid.clone().into(),
            _ => kept("uid", format!("{resource}-{next}").into()),
        };
        object["metadata"]["resourceVersion"] = kept("resourceVersion", next.to_string().into());
        if there.as_ref() == Some(&object) {
            return object;
        }
        object["metadata"]["resourceVersion"] = next.to_string().into();
        content.version = next;
        let kind = if there.is_some() { "MODIFIED" } else { "ADDED" };
        content.events.push(Event {
            version: next,
            kind,
            resource: key.0.clone(),
            name,
            object: object.clone(),
        });
        content.objects.insert(key, object.clone());
        drop(content);
        self.version.send_replace(next);
        object
    }

    fn note(&self, writer: &str, verb: &str, resource: &str, label: String) {
        let mut content = self.state.lock().unwrap();
        content.said.insert((writer.to_owned(), format!("{verb} {resource}")), label);
    }
}

async fn answer(
    State(store): State<Arc<Store>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let asked = asked(&uri);
    let writer = headers.get("authorization").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let writer = writer.trim_start_matches("Bearer ");
    let sent: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let there = asked.name.and_then(|name| {
        let content = store.state.lock().unwrap();
        content.objects.get(&(asked.resource.to_owned(), name.to_owned())).cloned()
    });
    match (method.as_str(), there) {
        ("GET", _) if asked.query.get("watch").is_some_and(|it| it == "true") => follow(&store, &asked),
        ("GET", _) if asked.name.is_none() => list(&store, &asked),
        ("GET", Some(there)) => axum::Json(there).into_response(),
        ("POST", _) if asked.resource == "events" => axum::Json(sent).into_response(),
        ("POST", None) => {
            let label = name_of(&sent);
            store.note(writer, "create", asked.resource, label);
            (StatusCode::CREATED, axum::Json(store.put(asked.resource, sent))).into_response()
        }
        ("PUT", Some(there)) => {
            if sent["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"] {
                return refusal(StatusCode::CONFLICT, "Conflict");
            }
            store.note(writer, "update", asked.resource, changed(&there, &sent));
            axum::Json(store.put(asked.resource, sent)).into_response()
        }
        ("PATCH", Some(there)) => {
            let uid = &sent["metadata"]["uid"];
            if !uid.is_null() && *uid != there["metadata"]["uid"] {
                return refusal(StatusCode::CONFLICT, "Conflict");
            }
            let mut merged = there.clone();
            let mut patch = sent;
            if headers.get("content-type").is_some_and(|it| it == "application/apply-patch+yaml") {
                // Only statuses are applied, each field by one writer: what it gives comes in place of what was there.
                for (key, value) in patch["status"].as_object().into_iter().flatten() {
                    merged["status"][key.as_str()] = value.clone();
                }
                patch = Value::Null;
            }
            merge(&mut merged, &patch);
            store.note(writer, "patch", asked.resource, name_of(&there));
            axum::Json(store.put(asked.resource, merged)).into_response()
        }
        _ => refusal(StatusCode::NOT_FOUND, "NotFound"),
    }
}

/// `/api/v1/namespaces/<namespace>/<resource>[/<name>[/status]]`, or the same below `/apis/<group>/<version>`.
fn asked(uri: &Uri) -> Asked<'_> {
    let mut parts = uri.path().split('/').skip_while(|part| *part != "namespaces").skip(2);
    let query = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let query = query.map(|(key, value)| (key.to_owned(), value.replace("%3D", "="))).collect();
    Asked { resource: parts.next().unwrap_or_default(), name: parts.next(), query }
}

impl Asked<'_> {
    fn selected(&self) -> &str {
        let selector = self.query.get("fieldSelector").map(String::as_str).unwrap_or_default();
        selector.strip_prefix("metadata.name=").expect("agents may only list and watch by name (K17)")
    }
}

fn list(store: &Store, asked: &Asked<'_>) -> Response {
    let content = store.state.lock().unwrap();
    let object = content.objects.get(&(asked.resource.to_owned(), asked.selected().to_owned()));
    let items: Vec<&Value> = object.into_iter().collect();
    let version = content.version.to_string();
    let list =
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items});
    axum::Json(list).into_response()
}

fn follow(store: &Arc<Store>, asked: &Asked<'_>) -> Response {
    let number = |key: &str| asked.query.get(key).and_then(|it| it.parse::<u64>().ok()).unwrap_or_default();
    let until = tokio::time::Instant::now() + Duration::from_secs(number("timeoutSeconds"));
    let (resource, name) = (asked.resource.to_owned(), asked.selected().to_owned());
    let from = (Arc::clone(store), store.version.subscribe(), number("resourceVersion"));
    let lines = futures::stream::unfold(from, move |(store, mut news, mut seen)| {
        let (resource, name) = (resource.clone(), name.clone());
        async move {
            loop {
                let mut lines = String::new();
                news.borrow_and_update();
                let events: Vec<Event> = {
                    let content = store.state.lock().unwrap();
                    let newer = content.events.partition_point(|event| event.version <= seen);
                    seen = seen.max(content.version);
                    content.events[newer..].to_vec()
                };
                for event in events.iter().filter(|it| it.resource == resource && it.name == name) {
                    lines.push_str(&json!({"type": event.kind, "object": event.object}).to_string());
                    lines.push('\n');
                }
                if !lines.is_empty() {
                    return Some((Ok::<_, std::convert::Infallible>(lines), (store, news, seen)));
                }
                if tokio::time::timeout_at(until, news.changed()).await.is_err() {
                    return None;
                }
            }
        }
    });
    Body::from_stream(lines).into_response()
}

fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else { return };
    for (key, value) in fields {
        if value.is_null() {
            if let Some(into) = into.as_object_mut() {
                into.remove(key);
            }
        } else if value.is_object() && into[key.as_str()].is_object() {
            merge(&mut into[key.as_str()], value);
        } else {
            into[key.as_str()] = value.clone();
        }
    }
}

fn refusal(code: StatusCode, reason: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason,
        "reason": reason, "code": code.as_u16(), "metadata": {}});
    (code, axum::Json(status)).into_response()
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// For people who read which step it was: what of the record has changed.
fn changed(there: &Value, new: &Value) -> String {
    let record = |of: &Value| -> Value {
        let text = of["metadata"]["annotations"][kubernetes::record::RECORD_ANNOTATION].as_str();
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    };
    let fields = crate::steps::differences(&record(there), &record(new));
    if fields.is_empty() { name_of(new) } else { format!("{} ({fields})", name_of(new)) }
}
