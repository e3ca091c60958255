//! All builds of a team.

use axum::Json;
use axum::extract::State;
use casemate_wire::{CancelledBuilds, ErrorBody};

use crate::error::ApiError;
use crate::extract::TeamPath;
use crate::router::ApiState;

/// Ends every build of a team that waits or is under way.
#[utoipa::path(
    post, path = "/admin/teams/{teamID}/builds/cancel", tag = "admin",
    params(("teamID" = String, Path, description = "A UUID")),
    responses((status = 200, body = CancelledBuilds), (status = "default", body = ErrorBody))
)]
pub(crate) async fn cancel_all(
    State(state): State<ApiState>,
    TeamPath(team): TeamPath,
) -> Result<Json<CancelledBuilds>, ApiError> {
    let control = state.control.clone();
    let work = async move { control.cancel_team_builds(&team).await };
    let count = state.control.tasks().detached(work).await??;
    Ok(Json(CancelledBuilds {
        cancelled_count: count.cancelled,
        failed_count: count.failed,
    }))
}
