//! `/templates/tags` and `/templates/{templateID}/tags`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use casemate_wire::{
    AssignTags, AssignedTags, DeleteTags, ErrorBody, TemplateTag, TemplateTagCount,
    TemplateTagExists,
};

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{JsonBody, Params, Segment};
use crate::router::ApiState;

/// Gives a ready build more tags, or moves them to it.
#[utoipa::path(
    post, path = "/templates/tags", tag = "templates", request_body = AssignTags,
    responses((status = 201, body = AssignedTags), (status = "default", body = ErrorBody))
)]
pub(crate) async fn assign(
    State(state): State<ApiState>,
    Team(caller): Team,
    body: JsonBody<AssignTags>,
) -> Result<(StatusCode, Json<AssignedTags>), ApiError> {
    let (control, body) = (state.control.clone(), body.value);
    let tags = body.tags.unwrap_or_default();
    let work = async move { control.assign_tags(&caller, &body.target, &tags).await };
    let assigned = state.control.tasks().detached(work).await??;
    let answer = AssignedTags {
        tags: assigned.tags,
        build_id: assigned.build.to_string(),
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Takes tags away; those that it does not have are no error.
#[utoipa::path(
    delete, path = "/templates/tags", tag = "templates", request_body = DeleteTags,
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(crate) async fn remove(
    State(state): State<ApiState>,
    Team(caller): Team,
    body: JsonBody<DeleteTags>,
) -> Result<StatusCode, ApiError> {
    let (control, body) = (state.control.clone(), body.value);
    let tags = body.tags.unwrap_or_default();
    let work = async move { control.remove_tags(&caller, &body.name, &tags).await };
    state.control.tasks().detached(work).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Each tag with the build that got it last, by tag.
#[utoipa::path(
    get, path = "/templates/{templateID}/tags", tag = "templates",
    params(("templateID" = String, Path, description = "`[slug/]alias` or an id")),
    responses((status = 200, body = Vec<TemplateTag>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Team(caller): Team,
    Segment(template): Segment,
) -> Result<Json<Vec<TemplateTag>>, ApiError> {
    let tags = state.control.list_tags(&caller, &template).await?;
    let shown = tags.into_iter().map(|one| TemplateTag {
        tag: one.tag,
        build_id: one.build.to_string(),
        created_at: one.assigned_at,
    });
    Ok(Json(shown.collect()))
}

/// How many it has.
#[utoipa::path(
    get, path = "/templates/{templateID}/tags/count", tag = "templates",
    params(("templateID" = String, Path, description = "`[slug/]alias` or an id")),
    responses((status = 200, body = TemplateTagCount), (status = "default", body = ErrorBody))
)]
pub(crate) async fn count(
    State(state): State<ApiState>,
    Team(caller): Team,
    Segment(template): Segment,
) -> Result<Json<TemplateTagCount>, ApiError> {
    let tags = state.control.list_tags(&caller, &template).await?;
    let total = u64::try_from(tags.len()).unwrap_or(u64::MAX);
    Ok(Json(TemplateTagCount { total }))
}

/// Whether a tag leads to a build that is ready.
#[utoipa::path(
    get, path = "/templates/{templateID}/tags/exists", tag = "templates",
    params(
        ("templateID" = String, Path, description = "`[slug/]alias` or an id"),
        ("tag" = String, Query),
    ),
    responses((status = 200, body = TemplateTagExists), (status = "default", body = ErrorBody))
)]
pub(crate) async fn exists(
    State(state): State<ApiState>,
    Team(caller): Team,
    Segment(template): Segment,
    params: Params,
) -> Result<Json<TemplateTagExists>, ApiError> {
    let tag = params.required("tag")?;
    let (exists, normalized_tag) = state.control.has_tag(&caller, &template, tag).await?;
    Ok(Json(TemplateTagExists {
        exists,
        normalized_tag,
    }))
}
