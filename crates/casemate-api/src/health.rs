//! `GET /health` and `GET /ready`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::router::ApiState;

#[utoipa::path(
    get, path = "/health", tag = "health",
    responses(
        (status = 200, description = "A node was heard of", body = String),
        (status = 503, description = "No node yet, or stopping", body = String),
    )
)]
pub(crate) async fn health(State(state): State<ApiState>) -> Response {
    if state.control.is_healthy() {
        "ok: Health check successful".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "Service is unavailable").into_response()
    }
}

/// Whether a sandbox can be created.
#[derive(Serialize, ToSchema)]
pub(crate) struct Ready {
    ready: bool,
    /// What is not there yet: `store`, `node`, `base_template`.
    missing: Vec<&'static str>,
}

#[utoipa::path(
    get, path = "/ready", tag = "health",
    responses(
        (status = 200, description = "A sandbox can be created", body = Ready),
        (status = 503, description = "Something is missing", body = Ready),
    )
)]
pub(crate) async fn ready(State(state): State<ApiState>) -> Response {
    let found = state.control.readiness().await;
    let parts = [
        ("store", found.store),
        ("node", found.node),
        ("base_template", found.base_template),
    ];
    let missing = parts.into_iter().filter(|(_, there)| !there);
    let body = Ready {
        ready: found.is_ready(),
        missing: missing.map(|(name, _)| name).collect(),
    };
    let status = if body.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}
