//! `GET /templates`, `GET /v2/templates`, `GET /templates/{templateID}` and `GET /default-templates`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use casemate_control::templates::Asker;
use casemate_control::templates::list::PageAsk;
use casemate_control::templates::update::full_names;
use casemate_store::{BuildRecord, TemplateSummary};
use casemate_types::limits::PAGE_ROWS_MAX;
use casemate_wire::{ErrorBody, Template, TemplateBuild, TemplateWithBuilds};

use super::word;
use crate::auth::{Team, TeamOrUser};
use crate::error::ApiError;
use crate::extract::{Params, Segment};
use crate::router::ApiState;

const NEXT_TOKEN: HeaderName = HeaderName::from_static("x-next-token");
const NO_BUILD: &str = "00000000-0000-0000-0000-000000000000";

/// All of a team's, the oldest first.
#[utoipa::path(
    get, path = "/templates", tag = "templates",
    params(("teamID" = Option<String>, Query, description = "For a user; a key's own otherwise")),
    responses((status = 200, body = Vec<Template>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn v1(
    State(state): State<ApiState>,
    caller: TeamOrUser,
    params: Params,
) -> Result<Json<Vec<Template>>, ApiError> {
    let asker = Asker::from(caller);
    let all = state.control.list_all_templates(&asker, team(&params));
    Ok(Json(all.await?.into_iter().map(shown).collect()))
}

/// The platform's own, by id. How often others use them is nobody's business.
#[utoipa::path(
    get, path = "/default-templates", tag = "templates",
    responses((status = 200, body = Vec<Template>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn stock(
    State(state): State<ApiState>,
    Team(_): Team,
) -> Result<Json<Vec<Template>>, ApiError> {
    let all = state.control.list_stock_templates().await?;
    let shown = all.into_iter().map(|summary| Template {
        last_spawned_at: None,
        spawn_count: 0,
        build_count: 0,
        ..shown(summary)
    });
    Ok(Json(shown.collect()))
}

/// A page of them, the newest first.
#[utoipa::path(
    get, path = "/v2/templates", tag = "templates",
    params(
        ("teamID" = Option<String>, Query, description = "For a user; a key's own otherwise"),
        ("nextToken" = Option<String>, Query),
        ("limit" = Option<i32>, Query, minimum = 1, maximum = 100),
    ),
    responses(
        (status = 200, body = Vec<Template>, headers(
            ("X-Next-Token" = String, description = "Only when there is more"),
        )),
        (status = "default", body = ErrorBody),
    )
)]
pub(crate) async fn v2(
    State(state): State<ApiState>,
    caller: TeamOrUser,
    params: Params,
) -> Result<(HeaderMap, Json<Vec<Template>>), ApiError> {
    let (asker, ask) = (Asker::from(caller), page(&params)?);
    let found = state.control.list_templates(&asker, team(&params), &ask);
    let found = found.await?;
    let templates = found.templates.into_iter().map(shown).collect();
    Ok((next(found.next_token), Json(templates)))
}

/// One, with a page of its builds, the newest first.
#[utoipa::path(
    get, path = "/templates/{templateID}", tag = "templates",
    params(
        ("templateID" = String, Path, description = "`[slug/]alias` or an id"),
        ("nextToken" = Option<String>, Query),
        ("limit" = Option<i32>, Query, minimum = 1, maximum = 100),
    ),
    responses(
        (status = 200, body = TemplateWithBuilds, headers(
            ("X-Next-Token" = String, description = "Only when there is more"),
        )),
        (status = "default", body = ErrorBody),
    )
)]
pub(crate) async fn get(
    State(state): State<ApiState>,
    Team(caller): Team,
    Segment(template): Segment,
    params: Params,
) -> Result<(HeaderMap, Json<TemplateWithBuilds>), ApiError> {
    let ask = page(&params)?;
    let detail = state.control.template_detail(&caller, &template, &ask);
    let detail = detail.await?;
    let summary = detail.template;
    let answer = TemplateWithBuilds {
        template_id: summary.template.id.to_string(),
        public: summary.template.public,
        aliases: aliases(&summary),
        names: full_names(&summary.names),
        created_at: summary.template.created_at,
        updated_at: summary.updated_at,
        last_spawned_at: summary.last_spawned_at,
        spawn_count: summary.spawn_count,
        builds: detail.builds.into_iter().map(build).collect(),
    };
    Ok((next(detail.next_token), Json(answer)))
}

/// An empty one is as good as none.
fn team(params: &Params) -> Option<&str> {
    params.text("teamID").filter(|team| !team.is_empty())
}

fn page(params: &Params) -> Result<PageAsk, ApiError> {
    let rows_max = i32::try_from(PAGE_ROWS_MAX).unwrap_or(i32::MAX);
    Ok(PageAsk {
        limit: params.int32("limit", 1, rows_max)?.unwrap_or(PAGE_ROWS_MAX),
        next_token: params.text("nextToken").map(Into::into),
    })
}

fn next(token: Option<String>) -> HeaderMap {
    let token = token.and_then(|token| HeaderValue::from_str(&token).ok());
    token.map(|token| (NEXT_TOKEN, token)).into_iter().collect()
}

fn shown(summary: TemplateSummary) -> Template {
    let (aliases, names) = (aliases(&summary), full_names(&summary.names));
    let ready = summary.ready;
    let resources = ready.as_ref().map(|build| build.resources);
    Template {
        template_id: summary.template.id.to_string(),
        build_id: match &ready {
            Some(build) => build.id.to_string(),
            None => NO_BUILD.into(),
        },
        cpu_count: resources.map_or(0, |resources| resources.vcpus),
        memory_mb: resources.map_or(0, |resources| resources.memory_mib),
        disk_size_mb: ready.as_ref().and_then(|b| b.disk_size_mib).unwrap_or(0),
        public: summary.template.public,
        aliases,
        names,
        created_at: summary.template.created_at,
        updated_at: summary.updated_at,
        // Builds are asked for with keys of teams.
        created_by: None,
        last_spawned_at: summary.last_spawned_at,
        spawn_count: summary.spawn_count,
        build_count: summary.build_count,
        envd_version: ready
            .and_then(|build| build.envd_version)
            .unwrap_or_default(),
        build_status: word(summary.status).into(),
    }
}

fn aliases(summary: &TemplateSummary) -> Vec<String> {
    let mut aliases: Vec<String> = summary
        .names
        .iter()
        .map(|(_, alias)| alias.clone())
        .collect();
    aliases.sort();
    aliases.dedup();
    aliases
}

fn build(record: BuildRecord) -> TemplateBuild {
    TemplateBuild {
        build_id: record.id.to_string(),
        status: word(record.status).into(),
        created_at: record.created_at,
        updated_at: record.updated_at,
        finished_at: record.finished_at,
        cpu_count: record.resources.vcpus,
        memory_mb: record.resources.memory_mib,
        disk_size_mb: record.disk_size_mib,
        envd_version: record.envd_version,
    }
}
