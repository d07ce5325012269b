//! The answers: the old one to any GET, the whole one at `/status`, and ways to wait for a change.
//!
//! Every answer comes from one snapshot of the view, without a call to the API server. It must never name a leader whose
//! time is over, and answers 503 when the view is older than the TTL.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{ConnectInfo, Query, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::{get, post},
};
use futures::Stream;
use kubernetes::{clock::boottime, leader_election::View};
use serde::Deserialize;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, time::Instant};

use super::{
    answer::{Told, explained, told},
    metrics::ElectorMetrics,
};
use crate::elector::{Handle, StepDownError};

/// How long `/wait` waits at most, and by default.
const WAIT: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(60));

/// What the answers are made from.
#[derive(Debug, Clone)]
pub struct Shown(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handle: Handle,
    view: watch::Receiver<View>,
    me: String,
    ttl: Duration,
    metrics: ElectorMetrics,
    remote_step_down: bool,
}

impl Shown {
    /// Answers for the candidate of this name.
    pub fn new(
        handle: Handle,
        me: String,
        ttl: Duration,
        metrics: ElectorMetrics,
        remote_step_down: bool,
    ) -> Self {
        let view = handle.view();
        Self(Arc::new(Inner { handle, view, me, ttl, metrics, remote_step_down }))
    }

    /// What is told now.
    pub fn told(&self) -> Told {
        told(&self.0.view.borrow(), &self.0.me, self.0.ttl, boottime())
    }

    /// Until what is told differs in what matters from `before`.
    pub async fn news(&self, before: &Told) -> Told {
        let mut view = self.0.view.clone();
        view.mark_changed();
        loop {
            let now = self.told();
            if now.news() != before.news() {
                return now;
            }
            // A leader's time can be over without anybody saying so.
            let over = now.expires_in.map_or(self.0.ttl, Duration::from_millis) + Duration::from_millis(1);
            tokio::select! {
                changed = view.changed() => if changed.is_err() { tokio::time::sleep(over).await },
                () = tokio::time::sleep(over) => {}
            }
        }
    }
}

/// Serves until the process ends.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, shown: Shown) -> std::io::Result<()> {
    axum::serve(listener, router(shown).into_make_service_with_connect_info::<SocketAddr>()).await
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/livez", get(livez))
        .route("/healthz", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/wait", get(wait))
        .route("/events", get(events))
        .route("/step-down", post(step_down))
        .fallback(name)
        .with_state(shown)
}

/// The headers, for scripts.
fn headers(told: &Told) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    let values = [
        ("x-leader", told.name.clone()),
        ("x-self", told.me.clone()),
        ("x-is-leader", told.is_leader.to_string()),
        ("x-epoch", number(told.epoch)),
        ("x-age-ms", number(told.age)),
        ("x-expires-in-ms", number(told.expires_in)),
    ];
    for (name, value) in values {
        // A name is printable, but may be beyond ASCII.
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.insert(name, value);
        }
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
}

fn code(told: &Told) -> StatusCode {
    if told.stale { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

/// `{"name": …}` to any GET, as it always was.
async fn name(State(shown): State<Shown>, method: Method) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let told = shown.told();
    (code(&told), headers(&told), Json(json!({"name": told.name}))).into_response()
}

async fn status(State(shown): State<Shown>) -> Response {
    whole(&shown.told())
}

fn whole(told: &Told) -> Response {
    (code(told), headers(told), Json(told)).into_response()
}

/// Whether the election goes on at all; an API server that is away is no reason for a restart.
async fn livez(State(shown): State<Shown>) -> Response {
    if shown.0.view.has_changed().is_err() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the election has ended\n").into_response();
    }
    "ok\n".into_response()
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let told = shown.told();
    let problem = shown.0.view.borrow().problem.as_ref().map(explained);
    match (told.stale, problem) {
        (false, _) => "ok\n".into_response(),
        (true, Some(problem)) => (StatusCode::SERVICE_UNAVAILABLE, problem + "\n").into_response(),
        (true, None) => {
            (StatusCode::SERVICE_UNAVAILABLE, "nothing is known that is newer than the TTL\n").into_response()
        }
    }
}

async fn metrics(State(shown): State<Shown>) -> Response {
    match shown.0.metrics.text(&shown.told()) {
        Ok(text) => ([(header::CONTENT_TYPE, telemetry::metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, telemetry::report(&error)).into_response(),
    }
}

#[derive(Debug, Deserialize)]
struct Wait {
    epoch: Option<u64>,
    /// Seconds.
    timeout: Option<u64>,
}

/// Answers at once when the epoch is another one than the asker knows, else at the next change, else after its time.
async fn wait(State(shown): State<Shown>, Query(asked): Query<Wait>) -> Response {
    let before = shown.told();
    if asked.epoch.is_some() && asked.epoch != before.epoch {
        return whole(&before);
    }
    let bound = asked.timeout.map_or(WAIT.1, Duration::from_secs).min(WAIT.0);
    match tokio::time::timeout(bound, shown.news(&before)).await {
        Ok(told) => whole(&told),
        Err(_) => whole(&shown.told()),
    }
}

/// One event now and one at each change.
async fn events(State(shown): State<Shown>) -> impl IntoResponse {
    Sse::new(changes(shown)).keep_alive(KeepAlive::default())
}

fn changes(shown: Shown) -> impl Stream<Item = Result<Event, Infallible>> {
    futures::stream::unfold((shown, None::<Told>), async |(shown, before)| {
        let told = match &before {
            None => shown.told(),
            Some(before) => shown.news(before).await,
        };
        // Strings and numbers only: nothing that could fail.
        let data = serde_json::to_string(&told).unwrap_or_default();
        Some((Ok(Event::default().event("leader").data(data)), (shown, Some(told))))
    })
}

#[derive(Debug, Deserialize)]
struct StepDown {
    /// A candidate's name.
    to: Option<String>,
}

async fn step_down(
    State(shown): State<Shown>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Query(asked): Query<StepDown>,
) -> Response {
    if !from.ip().to_canonical().is_loopback() && !shown.0.remote_step_down {
        let why = "only the pod itself may ask for that (--allow-remote-step-down)\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let asked_at = Instant::now();
    match shown.0.handle.step_down(asked.to.as_deref()).await {
        Ok(()) => {
            tracing::info!(%from, to = asked.to, took = ?asked_at.elapsed(), "stepped down on request");
            (StatusCode::OK, "released\n").into_response()
        }
        Err(error @ StepDownError::NotInOffice(_)) => {
            (StatusCode::CONFLICT, format!("{error}; the leader is {:?}\n", shown.told().name))
                .into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}
