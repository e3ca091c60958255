//! `/admin/teams/{teamID}/api-keys`: the way to keys without an auth provider.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use casemate_wire::{CreatedTeamApiKey, ErrorBody, KeyName};

use crate::api_keys::created;
use crate::error::ApiError;
use crate::extract::{JsonBody, TeamKeyPath, TeamPath};
use crate::router::ApiState;

#[utoipa::path(
    post, path = "/admin/teams/{teamID}/api-keys", tag = "admin", request_body = KeyName,
    params(("teamID" = String, Path, description = "A UUID")),
    responses((status = 201, body = CreatedTeamApiKey), (status = "default", body = ErrorBody))
)]
pub(crate) async fn create(
    State(state): State<ApiState>,
    TeamPath(team): TeamPath,
    body: JsonBody<KeyName>,
) -> Result<(StatusCode, Json<CreatedTeamApiKey>), ApiError> {
    let control = state.control.clone();
    let work = async move { control.api_key_create(&team, &body.value.name).await };
    let key = state.control.tasks().detached(work).await??;
    Ok((StatusCode::CREATED, Json(created(key))))
}

#[utoipa::path(
    delete, path = "/admin/teams/{teamID}/api-keys/{apiKeyID}", tag = "admin",
    params(
        ("teamID" = String, Path, description = "A UUID"),
        ("apiKeyID" = String, Path, description = "A UUID"),
    ),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    TeamKeyPath(team, key): TeamKeyPath,
) -> Result<StatusCode, ApiError> {
    let control = state.control.clone();
    let work = async move { control.api_key_delete(&team, &key).await };
    match state.control.tasks().detached(work).await?? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("API key not found")),
    }
}
