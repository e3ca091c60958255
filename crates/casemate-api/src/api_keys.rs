//! `/api-keys`: a team's keys, for its members (and the administrator in their place).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use casemate_control::admin::NewApiKey;
use casemate_store::ApiKey;
use casemate_wire::{CreatedTeamApiKey, ErrorBody, KeyMask, KeyName, TeamApiKey, TeamUser};

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{JsonBody, KeyPath};
use crate::router::ApiState;

#[utoipa::path(
    get, path = "/api-keys", tag = "api-keys",
    responses((status = 200, body = Vec<TeamApiKey>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Team(caller): Team,
) -> Result<Json<Vec<TeamApiKey>>, ApiError> {
    let keys = state.control.api_key_list(&caller.team.id).await?;
    Ok(Json(keys.into_iter().map(shown).collect()))
}

#[utoipa::path(
    patch, path = "/api-keys/{apiKeyID}", tag = "api-keys", request_body = KeyName,
    params(("apiKeyID" = String, Path, description = "A UUID")),
    responses((status = 202), (status = "default", body = ErrorBody))
)]
pub(crate) async fn rename(
    State(state): State<ApiState>,
    Team(caller): Team,
    KeyPath(key): KeyPath,
    body: JsonBody<KeyName>,
) -> Result<StatusCode, ApiError> {
    let control = state.control.clone();
    let work = async move {
        let name = &body.value.name;
        control.api_key_rename(&caller.team.id, &key, name).await
    };
    match state.control.tasks().detached(work).await?? {
        true => Ok(StatusCode::ACCEPTED),
        false => Err(ApiError::not_found("id not found")),
    }
}

#[utoipa::path(
    delete, path = "/api-keys/{apiKeyID}", tag = "api-keys",
    params(("apiKeyID" = String, Path, description = "A UUID")),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    Team(caller): Team,
    KeyPath(key): KeyPath,
) -> Result<StatusCode, ApiError> {
    let control = state.control.clone();
    let work = async move { control.api_key_delete(&caller.team.id, &key).await };
    match state.control.tasks().detached(work).await?? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("id not found")),
    }
}

fn shown(key: ApiKey) -> TeamApiKey {
    TeamApiKey {
        id: key.id.to_string(),
        mask: mask(&key),
        created_by: creator(&key),
        name: key.name,
        created_at: key.created_at,
        last_used: key.last_used,
    }
}

pub(crate) fn created(new: NewApiKey) -> CreatedTeamApiKey {
    CreatedTeamApiKey {
        id: new.key.id.to_string(),
        key: new.value.reveal(),
        mask: mask(&new.key),
        created_by: creator(&new.key),
        name: new.key.name,
        created_at: new.key.created_at,
        last_used: new.key.last_used,
    }
}

fn mask(key: &ApiKey) -> KeyMask {
    KeyMask {
        prefix: key.mask.prefix.clone(),
        value_length: key.mask.value_len,
        masked_value_prefix: key.mask.masked_prefix.clone(),
        masked_value_suffix: key.mask.masked_suffix.clone(),
    }
}

fn creator(key: &ApiKey) -> Option<TeamUser> {
    let id = key.created_by.as_ref()?.to_string();
    Some(TeamUser { id, email: None })
}
