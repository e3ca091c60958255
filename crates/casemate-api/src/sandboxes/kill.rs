//! `DELETE /sandboxes/{sandboxID}`.

use axum::extract::State;
use axum::http::StatusCode;
use casemate_wire::ErrorBody;

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::SandboxPath;
use crate::router::ApiState;

#[utoipa::path(
    delete, path = "/sandboxes/{sandboxID}", tag = "sandboxes",
    params(("sandboxID" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(crate) async fn kill(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
) -> Result<StatusCode, ApiError> {
    let control = state.control.clone();
    let work = async move { control.kill(&caller, &id).await };
    let killed = state.control.tasks().detached(work).await?;
    killed.map_err(|error| ApiError::of_change("Error killing sandbox", error))?;
    Ok(StatusCode::NO_CONTENT)
}
