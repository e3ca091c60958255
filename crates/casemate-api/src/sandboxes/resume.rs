//! `POST /sandboxes/{sandboxID}/resume`, which old clients call.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use casemate_types::limits::LIFE_SECONDS_DEFAULT_V1;
use casemate_wire::{ErrorBody, ResumeSandbox, Sandbox};

use super::{connected, kept};
use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{OptionalJson, SandboxPath};
use crate::router::ApiState;

#[utoipa::path(
    post, path = "/sandboxes/{sandboxID}/resume", tag = "sandboxes",
    request_body = Option<ResumeSandbox>, params(("sandboxID" = String, Path)),
    responses((status = 201, body = Sandbox), (status = "default", body = ErrorBody))
)]
pub(crate) async fn resume(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    OptionalJson(body): OptionalJson<ResumeSandbox>,
) -> Result<(StatusCode, Json<Sandbox>), ApiError> {
    let body = body.unwrap_or_default();
    let seconds = body.timeout.unwrap_or(LIFE_SECONDS_DEFAULT_V1);
    let timeout = Duration::from_secs(seconds.into());
    let (from, auto_pause) = (kept(body.memory), body.auto_pause);
    let control = state.control.clone();
    let work = async move {
        control
            .resume(&caller, &id, timeout, from, auto_pause)
            .await
    };
    let view = state.control.tasks().detached(work).await?;
    let view = view.map_err(|error| ApiError::of_change("Error resuming sandbox", error))?;
    Ok((StatusCode::CREATED, Json(connected(view))))
}
