//! `POST /sandboxes/{sandboxID}/fork`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use casemate_types::limits::LIFE_SECONDS_DEFAULT_V1;
use casemate_wire::{ErrorBody, ForkResult, ForkSandbox};

use super::{created, memory_header};
use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{OptionalJson, SandboxPath};
use crate::router::ApiState;

type Answer = (
    StatusCode,
    [(HeaderName, &'static str); 1],
    Json<Vec<ForkResult>>,
);

#[utoipa::path(
    post, path = "/sandboxes/{sandboxID}/fork", tag = "sandboxes",
    request_body = Option<ForkSandbox>, params(("sandboxID" = String, Path)),
    responses((status = 201, body = Vec<ForkResult>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn fork(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    OptionalJson(body): OptionalJson<ForkSandbox>,
) -> Result<Answer, ApiError> {
    let body = body.unwrap_or_default();
    let seconds = body.timeout.unwrap_or(LIFE_SECONDS_DEFAULT_V1);
    let timeout = Duration::from_secs(seconds.into());
    // One below 0 is told the same as none.
    let count = u32::try_from(body.count.unwrap_or(1)).unwrap_or(0);
    let control = state.control.clone();
    let work = async move { control.fork(&caller, &id, timeout, count).await };
    let forks = state.control.tasks().detached(work).await?;
    let forks = forks.map_err(|error| ApiError::from(error).made_once())?;
    let results = forks.into_iter().map(|fork| match fork {
        Ok(made) => ForkResult::Sandbox(created(made)),
        Err(error) => ForkResult::Error(ApiError::from(error).into_body()),
    });
    Ok((
        StatusCode::CREATED,
        memory_header(),
        Json(results.collect()),
    ))
}
