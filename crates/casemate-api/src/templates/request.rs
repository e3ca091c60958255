//! `POST /v3/templates`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use casemate_control::templates::request::RequestBuild;
use casemate_wire::{ErrorBody, NewTemplateBuild, RequestedTemplateBuild};

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::JsonBody;
use crate::router::ApiState;

/// Asks for a build; it waits for its recipe.
#[utoipa::path(
    post, path = "/v3/templates", tag = "templates", request_body = NewTemplateBuild,
    responses((status = 202, body = RequestedTemplateBuild), (status = "default", body = ErrorBody))
)]
pub(crate) async fn request(
    State(state): State<ApiState>,
    Team(caller): Team,
    body: JsonBody<NewTemplateBuild>,
) -> Result<(StatusCode, Json<RequestedTemplateBuild>), ApiError> {
    let body = body.value;
    let ask = RequestBuild {
        name: body.name.or(body.alias),
        tags: body.tags.unwrap_or_default(),
        vcpus: body.cpu_count,
        memory_mib: body.memory_mb,
        free_disk_mib: body.min_free_disk_mb,
    };
    let control = state.control.clone();
    let work = async move { control.request_build(&caller, &ask).await };
    let made = state.control.tasks().detached(work).await?;
    let made = made.map_err(|error| ApiError::from(error).made_once())?;
    let answer = RequestedTemplateBuild {
        template_id: made.template.to_string(),
        build_id: made.build.to_string(),
        public: made.public,
        aliases: vec![made.alias],
        names: vec![made.name],
        tags: made.tags,
    };
    Ok((StatusCode::ACCEPTED, Json(answer)))
}
