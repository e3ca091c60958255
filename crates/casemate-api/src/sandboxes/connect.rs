//! `POST /sandboxes/{sandboxID}/connect` and its v2.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use casemate_control::auth::TeamCaller;
use casemate_types::SandboxId;
use casemate_wire::{ConnectSandbox, ConnectSandboxV2, ErrorBody, Sandbox};

use super::connected;
use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{JsonBody, OptionalJson, SandboxPath};
use crate::router::ApiState;

#[utoipa::path(
    post, path = "/sandboxes/{sandboxID}/connect", tag = "sandboxes",
    request_body = ConnectSandbox, params(("sandboxID" = String, Path)),
    responses((status = 200, body = Sandbox), (status = "default", body = ErrorBody))
)]
pub(crate) async fn v1(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    body: JsonBody<ConnectSandbox>,
) -> Result<Json<Sandbox>, ApiError> {
    connect(&state, caller, id, body.value.timeout).await
}

#[utoipa::path(
    post, path = "/v2/sandboxes/{sandboxID}/connect", tag = "sandboxes",
    request_body = Option<ConnectSandboxV2>, params(("sandboxID" = String, Path)),
    responses((status = 200, body = Sandbox), (status = "default", body = ErrorBody))
)]
pub(crate) async fn v2(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    OptionalJson(body): OptionalJson<ConnectSandboxV2>,
) -> Result<Json<Sandbox>, ApiError> {
    let seconds = body.and_then(|body| body.timeout);
    let default = state.control.life_seconds_default();
    connect(&state, caller, id, seconds.unwrap_or(default)).await
}

/// `memory` is for paused sandboxes; a running one ignores it.
async fn connect(
    state: &ApiState,
    caller: TeamCaller,
    id: SandboxId,
    seconds: u32,
) -> Result<Json<Sandbox>, ApiError> {
    let timeout = Duration::from_secs(seconds.into());
    let control = state.control.clone();
    let work = async move { control.connect(&caller, &id, timeout).await };
    let view = state.control.tasks().detached(work).await?;
    let view = view.map_err(|error| ApiError::of_change("Error connecting to sandbox", error))?;
    Ok(Json(connected(view)))
}
