//! `/healthz`, `/readyz` and `/metrics`.
//!
//! A replica that waits for its turn is ready: a rolling update of the Deployment must not wait for the leadership.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};

/// What the endpoints show.
#[derive(Clone)]
pub struct Shown {
    /// Whether the API server was ever reached.
    pub ready: Arc<AtomicBool>,
    /// The registry.
    pub metrics: Arc<telemetry::metrics::Metrics>,
}

/// Serves until the process ends.
pub async fn serve(address: SocketAddr, shown: Shown) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shown);
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router).await
}

async fn ready(State(shown): State<Shown>) -> impl IntoResponse {
    if shown.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "waiting for the API server\n")
    }
}

async fn metrics(State(shown): State<Shown>) -> impl IntoResponse {
    match shown.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, telemetry::metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, telemetry::report(&error)).into_response(),
    }
}
