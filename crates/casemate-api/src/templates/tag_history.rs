//! `GET /templates/{templateID}/tags/groups` and `GET /templates/{templateID}/tags/{tag}/assignments`.

use axum::Json;
use axum::extract::State;
use casemate_control::templates::{GroupsAsk, TagOrder};
use casemate_store::TagEvent;
use casemate_wire::{
    ErrorBody, TemplateTagAssignment, TemplateTagAssignments, TemplateTagGroup, TemplateTagGroups,
};
use sha2::{Digest, Sha256};

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{Params, Segment, TwoSegments, bad_param};
use crate::router::ApiState;

/// The defaults are those of the SDK's generated client.
const GROUP_ASSIGNMENTS: u32 = 6;
const GROUPS: u32 = 25;
const ASSIGNMENTS: u32 = 50;
/// Of each of them at most.
const ROWS_MAX: i32 = 100;
const SEARCH_BYTES_MAX: usize = 64;

/// Its tags, each with the ready builds that got it last.
#[utoipa::path(
    get, path = "/templates/{templateID}/tags/groups", tag = "templates",
    params(
        ("templateID" = String, Path, description = "`[slug/]alias` or an id"),
        ("assignmentLimit" = Option<i32>, Query, minimum = 1, maximum = 100),
        ("tagsLimit" = Option<i32>, Query, minimum = 1, maximum = 100),
        ("tagsCursor" = Option<String>, Query),
        ("search" = Option<String>, Query, max_length = 64, pattern = "^[a-z0-9._-]*$"),
        ("sort" = Option<String>, Query,
            description = "`latest_desc` (default), `latest_asc`, `name_asc`, `name_desc`"),
    ),
    responses((status = 200, body = TemplateTagGroups), (status = "default", body = ErrorBody))
)]
pub(crate) async fn groups(
    State(state): State<ApiState>,
    Team(caller): Team,
    Segment(template): Segment,
    params: Params,
) -> Result<Json<TemplateTagGroups>, ApiError> {
    let limit = |name, usual| Ok::<_, ApiError>(params.int32(name, 1, ROWS_MAX)?.unwrap_or(usual));
    let ask = GroupsAsk {
        assignments_max: limit("assignmentLimit", GROUP_ASSIGNMENTS)?,
        tags_max: limit("tagsLimit", GROUPS)?,
        cursor: cursor(&params, "tagsCursor").map(Into::into),
        search: search(&params)?.map(Into::into),
        order: order(&params)?,
    };
    let page = state.control.tag_groups(&caller, &template, &ask).await?;
    let shown = page.groups.into_iter().map(|group| TemplateTagGroup {
        assignments: assignments(group.assignments),
        tag: group.tag,
        has_more: group.has_more,
    });
    Ok(Json(TemplateTagGroups {
        tags: shown.collect(),
        next_cursor: page.next_cursor,
    }))
}

/// When ready builds got a tag.
#[utoipa::path(
    get, path = "/templates/{templateID}/tags/{tag}/assignments", tag = "templates",
    params(
        ("templateID" = String, Path, description = "`[slug/]alias` or an id"),
        ("tag" = String, Path),
        ("cursor" = Option<String>, Query),
        ("limit" = Option<i32>, Query, minimum = 1, maximum = 100),
    ),
    responses((status = 200, body = TemplateTagAssignments), (status = "default", body = ErrorBody))
)]
pub(crate) async fn of_tag(
    State(state): State<ApiState>,
    Team(caller): Team,
    TwoSegments(template, tag): TwoSegments,
    params: Params,
) -> Result<Json<TemplateTagAssignments>, ApiError> {
    let limit = params.int32("limit", 1, ROWS_MAX)?.unwrap_or(ASSIGNMENTS);
    let after = cursor(&params, "cursor");
    let page = state
        .control
        .tag_assignments(&caller, &template, &tag, after, limit);
    let (events, next_cursor) = page.await?;
    Ok(Json(TemplateTagAssignments {
        data: assignments(events),
        next_cursor,
    }))
}

/// An empty one is as good as none.
fn cursor<'a>(params: &'a Params, name: &str) -> Option<&'a str> {
    params.text(name).filter(|token| !token.is_empty())
}

fn search(params: &Params) -> Result<Option<&str>, ApiError> {
    let Some(text) = params.text("search") else {
        return Ok(None);
    };
    let is_of_tag = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    match text.len() <= SEARCH_BYTES_MAX && text.bytes().all(is_of_tag) {
        true => Ok(Some(text)),
        false => Err(bad_param(
            "search",
            "at most 64 of a-z, 0-9, '.', '_' and '-' are allowed",
        )),
    }
}

fn order(params: &Params) -> Result<TagOrder, ApiError> {
    match params.text("sort") {
        None | Some("latest_desc") => Ok(TagOrder::LatestFirst),
        Some("latest_asc") => Ok(TagOrder::LatestLast),
        Some("name_asc") => Ok(TagOrder::Name),
        Some("name_desc") => Ok(TagOrder::NameBackwards),
        Some(_) => Err(bad_param("sort", "value is not one of the allowed values")),
    }
}

fn assignments(events: Vec<TagEvent>) -> Vec<TemplateTagAssignment> {
    let shown = events.into_iter().map(|event| TemplateTagAssignment {
        assignment_id: id(&event),
        build_id: event.build.to_string(),
        assigned_at: event.assigned_at,
        build_created_at: event.build_created_at,
        build_finished_at: event.build_finished_at,
    });
    shown.collect()
}

/// An assignment has no id of its own where it is kept; what it is makes one that stays.
fn id(event: &TagEvent) -> String {
    let micros = event.assigned_at.as_microsecond();
    let text = format!("{} {} {micros}", event.build, event.tag);
    let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes)
        .into_uuid()
        .to_string()
}
