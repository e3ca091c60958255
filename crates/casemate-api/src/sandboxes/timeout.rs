//! `POST /sandboxes/{sandboxID}/timeout` and `/refreshes`.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use casemate_wire::{ErrorBody, RefreshSandbox, SandboxTimeout};

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{JsonBody, OptionalJson, SandboxPath};
use crate::router::ApiState;

const REFUSED: &str = "Error when setting sandbox timeout";

#[utoipa::path(
    post, path = "/sandboxes/{sandboxID}/timeout", tag = "sandboxes",
    request_body = SandboxTimeout, params(("sandboxID" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(crate) async fn set(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    body: JsonBody<SandboxTimeout>,
) -> Result<StatusCode, ApiError> {
    let timeout = Duration::from_secs(body.value.timeout.into());
    let control = state.control.clone();
    let work = async move { control.set_timeout(&caller, &id, timeout).await };
    let set = state.control.tasks().detached(work).await?;
    set.map_err(|error| ApiError::of_change(REFUSED, error))?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    post, path = "/sandboxes/{sandboxID}/refreshes", tag = "sandboxes",
    request_body = RefreshSandbox, params(("sandboxID" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(crate) async fn refresh(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    OptionalJson(body): OptionalJson<RefreshSandbox>,
) -> Result<StatusCode, ApiError> {
    let seconds = body.and_then(|body| body.duration).unwrap_or(0);
    let duration = Duration::from_secs(seconds.into());
    let control = state.control.clone();
    let work = async move { control.refresh(&caller, &id, duration).await };
    let refreshed = state.control.tasks().detached(work).await?;
    refreshed.map_err(|error| ApiError::of_change(REFUSED, error))?;
    Ok(StatusCode::NO_CONTENT)
}
