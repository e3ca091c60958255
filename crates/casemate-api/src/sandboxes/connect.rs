//! `POST /sandboxes/{sandboxID}/connect` and its v2.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use casemate_control::auth::TeamCaller;
use casemate_types::{Kept, SandboxId};
use casemate_wire::{ConnectSandbox, ConnectSandboxV2, ErrorBody, Sandbox};

use super::{connected, kept};
use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{JsonBody, OptionalJson, SandboxPath};
use crate::router::ApiState;

type Answer = Result<(StatusCode, Json<Sandbox>), ApiError>;

#[utoipa::path(
    post, path = "/sandboxes/{sandboxID}/connect", tag = "sandboxes",
    request_body = ConnectSandbox, params(("sandboxID" = String, Path)),
    responses(
        (status = 200, body = Sandbox),
        (status = 201, body = Sandbox, description = "It was paused"),
        (status = "default", body = ErrorBody),
    )
)]
pub(crate) async fn v1(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    body: JsonBody<ConnectSandbox>,
) -> Answer {
    let body = body.value;
    connect(&state, caller, id, body.timeout, kept(body.memory)).await
}

#[utoipa::path(
    post, path = "/v2/sandboxes/{sandboxID}/connect", tag = "sandboxes",
    request_body = Option<ConnectSandboxV2>, params(("sandboxID" = String, Path)),
    responses(
        (status = 200, body = Sandbox),
        (status = 201, body = Sandbox, description = "It was paused"),
        (status = "default", body = ErrorBody),
    )
)]
pub(crate) async fn v2(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    OptionalJson(body): OptionalJson<ConnectSandboxV2>,
) -> Answer {
    let body = body.unwrap_or_default();
    let default = state.control.life_seconds_default();
    let seconds = body.timeout.unwrap_or(default);
    connect(&state, caller, id, seconds, kept(body.memory)).await
}

/// 201 where it was paused. `memory` is for those; a running one ignores it.
async fn connect(
    state: &ApiState,
    caller: TeamCaller,
    id: SandboxId,
    seconds: u32,
    from: Kept,
) -> Answer {
    let timeout = Duration::from_secs(seconds.into());
    let control = state.control.clone();
    let work = async move { control.connect(&caller, &id, timeout, from).await };
    let found = state.control.tasks().detached(work).await?;
    let found = found.map_err(|error| ApiError::of_change("Error connecting to sandbox", error))?;
    let status = match found.resumed {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Json(connected(found.view))))
}
