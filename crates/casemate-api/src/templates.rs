//! `/templates`: one file for each group of operations; here `GET /templates/aliases/{alias}` and
//! `DELETE /templates/{templateID}`.

pub(crate) mod builds;
pub(crate) mod export;
pub(crate) mod files;
pub(crate) mod gc;
pub(crate) mod list;
pub(crate) mod request;
pub(crate) mod start;
pub(crate) mod tag_history;
pub(crate) mod tags;
pub(crate) mod update;
pub(crate) mod upload;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use casemate_control::auth::Access;
use casemate_control::templates::Asker;
use casemate_types::BuildStatus;
use casemate_wire::{ErrorBody, TemplateAlias};

use crate::auth::{Team, TeamOrUser};
use crate::error::ApiError;
use crate::extract::Segment;
use crate::operation::Operation;
use crate::router::ApiState;

/// Templates and their builds.
#[rustfmt::skip]
pub(crate) fn operations() -> Vec<Operation> {
    use Access::{Anybody, Team, TeamOrToken};
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PATCH: Method = Method::PATCH;
    const DELETE: Method = Method::DELETE;
    vec![
        Operation::served(POST, "/v3/templates", Team, request::request),
        Operation::served(POST, "/v2/templates/{templateID}/builds/{buildID}", Team, start::start),
        Operation::served(GET, "/templates/{templateID}/files/{hash}", TeamOrToken, files::link),
        Operation::served(Method::PUT, "/uploads/{token}", Anybody, upload::put).long(),
        Operation::served(GET, "/templates/{templateID}/builds/{buildID}/status", TeamOrToken, builds::status).also_when_blocked(),
        Operation::served(GET, "/templates/{templateID}/builds/{buildID}/logs", TeamOrToken, builds::logs).also_when_blocked(),
        Operation::served(POST, "/builds/gc", Team, gc::gc).also_when_blocked(),
        Operation::served(GET, "/templates", TeamOrToken, list::v1).also_when_blocked(),
        Operation::served(GET, "/v2/templates", TeamOrToken, list::v2).also_when_blocked(),
        Operation::served(GET, "/templates/{templateID}/archive", Team, export::archive).long(),
        Operation::served(GET, "/templates/{templateID}", Team, list::get).also_when_blocked(),
        Operation::served(GET, "/templates/aliases/{alias}", Team, alias).also_when_blocked(),
        Operation::served(PATCH, "/templates/{templateID}", TeamOrToken, update::v1),
        Operation::served(PATCH, "/v2/templates/{templateID}", TeamOrToken, update::v2),
        Operation::served(DELETE, "/templates/{templateID}", TeamOrToken, delete).also_when_blocked(),
        Operation::served(POST, "/templates/tags", Team, tags::assign),
        Operation::served(DELETE, "/templates/tags", Team, tags::remove),
        Operation::served(GET, "/templates/{templateID}/tags", Team, tags::list).also_when_blocked(),
        Operation::served(GET, "/templates/{templateID}/tags/count", Team, tags::count).also_when_blocked(),
        Operation::served(GET, "/templates/{templateID}/tags/exists", Team, tags::exists).also_when_blocked(),
        Operation::served(GET, "/templates/{templateID}/tags/groups", Team, tag_history::groups).also_when_blocked(),
        Operation::served(GET, "/templates/{templateID}/tags/{tag}/assignments", Team, tag_history::of_tag).also_when_blocked(),
        Operation::served(GET, "/default-templates", Team, list::stock).also_when_blocked(),
    ]
}

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
    let asker = Asker::from(caller);
    let work = async move { control.delete_template(&asker, &template).await };
    state.control.tasks().detached(work).await??;
    Ok(StatusCode::NO_CONTENT)
}

impl From<TeamOrUser> for Asker {
    fn from(caller: TeamOrUser) -> Self {
        match caller {
            TeamOrUser::Team(caller) => Self::Team(caller),
            TeamOrUser::User(user) => Self::User(user),
        }
    }
}

/// Says that it is empty: Node's clients read a body of unknown length as JSON and fail.
fn empty(status: StatusCode) -> Response {
    let length = (CONTENT_LENGTH, HeaderValue::from_static("0"));
    (status, [length]).into_response()
}

fn word(status: BuildStatus) -> &'static str {
    match status {
        BuildStatus::Waiting => "waiting",
        BuildStatus::Building => "building",
        BuildStatus::Ready => "ready",
        BuildStatus::Failed => "error",
    }
}
