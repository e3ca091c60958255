//! `GET /templates/aliases/{alias}`, `DELETE /templates/{templateID}`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use casemate_wire::{ErrorBody, TemplateAlias};

use crate::auth::{Team, TeamOrUser};
use crate::error::ApiError;
use crate::extract::Segment;
use crate::router::ApiState;

/// Whether a name is taken: 200 and 403 mean yes to the SDKs, 404 no.
#[utoipa::path(
    get, path = "/templates/aliases/{alias}", tag = "templates",
    params(("alias" = String, Path, description = "`[slug/]alias[:tag]` or an id")),
    responses((status = 200, body = TemplateAlias), (status = "default", body = ErrorBody))
)]
pub(crate) async fn alias(
    State(state): State<ApiState>,
    Team(caller): Team,
    Segment(alias): Segment,
) -> Result<Json<TemplateAlias>, ApiError> {
    let found = state.control.find_alias(&caller, &alias).await?;
    Ok(Json(TemplateAlias {
        template_id: found.template.to_string(),
        public: found.public,
    }))
}

/// Snapshots are deleted by it too.
#[utoipa::path(
    delete, path = "/templates/{templateID}", tag = "templates",
    params(("templateID" = String, Path, description = "`[slug/]alias[:tag]` or an id")),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: TeamOrUser,
    Segment(template): Segment,
) -> Result<StatusCode, ApiError> {
    let control = state.control.clone();
    let work = async move {
        match caller {
            TeamOrUser::Team(caller) => control.delete_template(&caller, &template).await,
            TeamOrUser::User(user) => control.delete_users_template(&user, &template).await,
        }
    };
    state.control.tasks().detached(work).await??;
    Ok(StatusCode::NO_CONTENT)
}
