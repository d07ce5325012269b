//! The HTTP server over a [`StatusHandle`].

use std::io;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;

use super::{Readiness, StatusHandle};

/// Serves until the process ends.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, status: StatusHandle) -> io::Result<()> {
    axum::serve(listener, router(status)).await
}

fn router(status: StatusHandle) -> Router {
    Router::new()
        .route("/readyz", get(readyz))
        .route("/status", get(document))
        .route("/metrics", get(metrics))
        .with_state(status)
}

async fn readyz(State(status): State<StatusHandle>) -> impl IntoResponse {
    match status.readiness() {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::NotReady { why } => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

async fn document(State(status): State<StatusHandle>) -> impl IntoResponse {
    Json(status.document())
}

async fn metrics(State(status): State<StatusHandle>) -> impl IntoResponse {
    match status.metrics().text() {
        Ok(text) => ([(header::CONTENT_TYPE, telemetry::metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
