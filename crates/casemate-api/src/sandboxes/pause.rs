//! `POST /sandboxes/{sandboxID}/pause`.

use axum::extract::State;
use axum::http::StatusCode;
use casemate_control::sandboxes::pause::PauseSandbox;
use casemate_wire::ErrorBody;

use super::kept;
use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{OptionalJson, SandboxPath};
use crate::router::ApiState;

#[utoipa::path(
    post, path = "/sandboxes/{sandboxID}/pause", tag = "sandboxes",
    request_body = Option<casemate_wire::PauseSandbox>, params(("sandboxID" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(crate) async fn pause(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    OptionalJson(body): OptionalJson<casemate_wire::PauseSandbox>,
) -> Result<StatusCode, ApiError> {
    let body = body.unwrap_or_default();
    let ask = PauseSandbox {
        kept: kept(body.memory),
        healthy: body.require_healthy_guest == Some(true),
    };
    let control = state.control.clone();
    let work = async move { control.pause(&caller, &id, ask).await };
    let paused = state.control.tasks().detached(work).await?;
    paused.map_err(|error| ApiError::of_change("Error pausing sandbox", error))?;
    Ok(StatusCode::NO_CONTENT)
}
