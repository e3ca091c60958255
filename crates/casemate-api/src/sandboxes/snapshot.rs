//! `POST /sandboxes/{sandboxID}/snapshots`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use casemate_wire::{ErrorBody, NewSnapshot, SnapshotInfo};

use super::memory_header;
use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{JsonBody, SandboxPath};
use crate::router::ApiState;
use crate::snapshots::shown;

type Answer = (
    StatusCode,
    [(HeaderName, &'static str); 1],
    Json<SnapshotInfo>,
);

#[utoipa::path(
    post, path = "/sandboxes/{sandboxID}/snapshots", tag = "snapshots",
    request_body = NewSnapshot, params(("sandboxID" = String, Path)),
    responses((status = 201, body = SnapshotInfo), (status = "default", body = ErrorBody))
)]
pub(crate) async fn take(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    body: JsonBody<NewSnapshot>,
) -> Result<Answer, ApiError> {
    let ask = body.value;
    let control = state.control.clone();
    let work = async move {
        let name = ask.name.as_deref();
        control.take_snapshot(&caller, &id, name, ask.memory).await
    };
    let taken = state.control.tasks().detached(work).await?;
    let taken = taken.map_err(|error| ApiError::from(error).made_once())?;
    Ok((StatusCode::CREATED, memory_header(), Json(shown(taken))))
}
