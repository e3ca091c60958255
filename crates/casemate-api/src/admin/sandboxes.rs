//! All sandboxes of a team, and counts of all teams.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use casemate_wire::{ErrorBody, KilledSandboxes};

use crate::error::ApiError;
use crate::extract::TeamPath;
use crate::router::ApiState;

#[utoipa::path(
    post, path = "/admin/teams/{teamID}/sandboxes/kill", tag = "admin",
    params(("teamID" = String, Path, description = "A UUID")),
    responses((status = 200, body = KilledSandboxes), (status = "default", body = ErrorBody))
)]
pub(crate) async fn kill_all(
    State(state): State<ApiState>,
    TeamPath(team): TeamPath,
) -> Result<Json<KilledSandboxes>, ApiError> {
    let control = state.control.clone();
    let work = async move { control.kill_team(&team).await };
    let count = state.control.tasks().detached(work).await??;
    Ok(Json(KilledSandboxes {
        killed_count: count.killed,
        failed_count: count.failed,
    }))
}

#[utoipa::path(
    get, path = "/admin/sandboxes/running-counts", tag = "admin",
    responses((status = 200, body = BTreeMap<String, u64>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn running_counts(
    State(state): State<ApiState>,
) -> Result<Json<BTreeMap<String, u64>>, ApiError> {
    let counts = state.control.running_counts().await?;
    let named = counts
        .into_iter()
        .map(|(team, count)| (team.to_string(), count));
    Ok(Json(named.collect()))
}
