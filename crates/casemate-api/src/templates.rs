//! `GET /templates/aliases/{alias}`.

use axum::Json;
use axum::extract::State;
use casemate_wire::{ErrorBody, TemplateAlias};

use crate::auth::Team;
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
