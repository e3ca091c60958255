//! `GET /teams`.

pub(crate) mod metrics;

use axum::Json;
use axum::extract::State;
use casemate_wire::{ErrorBody, Team};

use crate::auth::User;
use crate::error::ApiError;
use crate::router::ApiState;

/// The caller's teams, each with a key made for this answer.
#[utoipa::path(
    get, path = "/teams", tag = "auth",
    responses((status = 200, body = Vec<Team>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    User(user): User,
) -> Result<Json<Vec<Team>>, ApiError> {
    let control = state.control.clone();
    let work = async move { control.teams_with_keys(&user).await };
    let teams = state.control.tasks().detached(work).await??;
    let teams = teams.into_iter().map(|(membership, key)| Team {
        team_id: membership.team.id.to_string(),
        name: membership.team.name,
        api_key: key.value.reveal(),
        is_default: membership.is_default,
    });
    Ok(Json(teams.collect()))
}
