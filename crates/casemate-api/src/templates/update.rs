//! `PATCH /v2/templates/{templateID}` and `PATCH /templates/{templateID}`.

use axum::Json;
use axum::extract::State;
use casemate_control::templates::Asker;
use casemate_wire::{ErrorBody, TemplateUpdate, UpdatedTemplate};
use serde_json::Value;

use crate::auth::TeamOrUser;
use crate::error::ApiError;
use crate::extract::{OptionalJson, Segment};
use crate::router::ApiState;

/// Lets other teams use a template, or not.
#[utoipa::path(
    patch, path = "/v2/templates/{templateID}", tag = "templates", request_body = TemplateUpdate,
    params(("templateID" = String, Path, description = "`[slug/]alias` or an id")),
    responses((status = 200, body = UpdatedTemplate), (status = "default", body = ErrorBody))
)]
pub(crate) async fn v2(
    State(state): State<ApiState>,
    caller: TeamOrUser,
    Segment(template): Segment,
    body: OptionalJson<TemplateUpdate>,
) -> Result<Json<UpdatedTemplate>, ApiError> {
    let names = update(state, caller, template, body).await?;
    Ok(Json(UpdatedTemplate { names }))
}

/// The same; the answer is `null`.
#[utoipa::path(
    patch, path = "/templates/{templateID}", tag = "templates", request_body = TemplateUpdate,
    params(("templateID" = String, Path, description = "`[slug/]alias` or an id")),
    responses((status = 200), (status = "default", body = ErrorBody))
)]
pub(crate) async fn v1(
    State(state): State<ApiState>,
    caller: TeamOrUser,
    Segment(template): Segment,
    body: OptionalJson<TemplateUpdate>,
) -> Result<Json<Value>, ApiError> {
    update(state, caller, template, body).await?;
    Ok(Json(Value::Null))
}

async fn update(
    state: ApiState,
    caller: TeamOrUser,
    template: String,
    OptionalJson(body): OptionalJson<TemplateUpdate>,
) -> Result<Vec<String>, ApiError> {
    let (control, asker) = (state.control.clone(), Asker::from(caller));
    let public = body.unwrap_or_default().public;
    let work = async move { control.update_template(&asker, &template, public).await };
    Ok(state.control.tasks().detached(work).await??)
}
