//! `GET /sandboxes` and `GET /v2/sandboxes`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use casemate_control::metadata_filter;
use casemate_control::sandboxes::SandboxView;
use casemate_control::sandboxes::list::ListSandboxes;
use casemate_store::Order;
use casemate_types::Timestamp;
use casemate_types::limits::PAGE_ROWS_MAX;
use casemate_types::sandbox::PublicState;
use casemate_wire::{CLIENT_ID, ErrorBody, ListedSandbox};

use super::{micros, word};
use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{Params, bad_param};
use crate::router::ApiState;

const NEXT_TOKEN: HeaderName = HeaderName::from_static("x-next-token");
const TOTAL_RUNNING: HeaderName = HeaderName::from_static("x-total-running");

#[utoipa::path(
    get, path = "/sandboxes", tag = "sandboxes",
    params(("metadata" = Option<String>, Query, description = "`key=value` pairs, form-encoded")),
    responses((status = 200, body = Vec<ListedSandbox>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn v1(
    State(state): State<ApiState>,
    Team(caller): Team,
    params: Params,
) -> Result<Json<Vec<ListedSandbox>>, ApiError> {
    let metadata = metadata(&params)?;
    let all = state.control.list_all_sandboxes(&caller, metadata).await?;
    Ok(Json(all.into_iter().map(shown).collect()))
}

#[utoipa::path(
    get, path = "/v2/sandboxes", tag = "sandboxes",
    params(
        ("metadata" = Option<String>, Query, description = "`key=value` pairs, form-encoded"),
        ("state" = Option<String>, Query, description = "Comma list of `running`, `paused`"),
        ("order" = Option<String>, Query, description = "`asc` or `desc` by start"),
        ("startedAfter" = Option<String>, Query, description = "Inclusive, RFC 3339"),
        ("template" = Option<String>, Query, description = "Id, alias or `namespace/alias`"),
        ("nextToken" = Option<String>, Query),
        ("limit" = Option<i32>, Query, minimum = 1, maximum = 100),
    ),
    responses(
        (status = 200, body = Vec<ListedSandbox>, headers(
            ("X-Next-Token" = String, description = "Only when there is more"),
            ("X-Total-Running" = i64, description = "Running ones that match"),
        )),
        (status = "default", body = ErrorBody),
    )
)]
pub(crate) async fn v2(
    State(state): State<ApiState>,
    Team(caller): Team,
    params: Params,
) -> Result<(HeaderMap, Json<Vec<ListedSandbox>>), ApiError> {
    let page = state
        .control
        .list_sandboxes(&caller, &ask(&params)?)
        .await?;
    let mut headers = HeaderMap::new();
    if let Some(token) = page.next_token
        && let Ok(token) = HeaderValue::from_str(&token)
    {
        headers.insert(NEXT_TOKEN, token);
    }
    if let Some(running) = page.running {
        headers.insert(TOTAL_RUNNING, running.into());
    }
    let rows = page.sandboxes.into_iter().map(shown).collect();
    Ok((headers, Json(rows)))
}

fn ask(params: &Params) -> Result<ListSandboxes, ApiError> {
    let rows_max = i32::try_from(PAGE_ROWS_MAX).unwrap_or(i32::MAX);
    Ok(ListSandboxes {
        states: states(params)?,
        order: order(params)?,
        started_after: params.value::<Timestamp>("startedAfter")?.map(micros),
        limit: params.int32("limit", 1, rows_max)?.unwrap_or(PAGE_ROWS_MAX),
        metadata: metadata(params)?,
        template: params.text("template").map(Into::into),
        next_token: params.text("nextToken").map(Into::into),
    })
}

fn states(params: &Params) -> Result<Vec<PublicState>, ApiError> {
    let Some(text) = params.text("state") else {
        return Ok(vec![PublicState::Running, PublicState::Paused]);
    };
    let mut states = Vec::new();
    for word in text.split(',') {
        match word {
            "running" => states.push(PublicState::Running),
            "paused" => states.push(PublicState::Paused),
            other => {
                let what = format!("value \"{other}\" is neither \"running\" nor \"paused\"");
                return Err(bad_param("state", what));
            }
        }
    }
    Ok(states)
}

fn order(params: &Params) -> Result<Order, ApiError> {
    match params.text("order") {
        None | Some("desc") => Ok(Order::NewestFirst),
        Some("asc") => Ok(Order::OldestFirst),
        Some(other) => {
            let what = format!("value \"{other}\" is neither \"asc\" nor \"desc\"");
            Err(bad_param("order", what))
        }
    }
}

fn metadata(params: &Params) -> Result<BTreeMap<String, String>, ApiError> {
    match params.text("metadata") {
        None => Ok(BTreeMap::new()),
        Some(text) => metadata_filter::decode(text)
            .map_err(|_| ApiError::bad_request("Error parsing metadata")),
    }
}

fn shown(view: SandboxView) -> ListedSandbox {
    let row = view.sandbox;
    ListedSandbox {
        template_id: row.template.to_string(),
        sandbox_id: row.id.to_string(),
        alias: row.alias,
        client_id: CLIENT_ID.into(),
        started_at: micros(view.started_at),
        end_at: micros(view.ends_at),
        cpu_count: row.resources.vcpus,
        memory_mb: row.resources.memory_mib,
        disk_size_mb: row.resources.disk_mib,
        metadata: (!row.metadata.is_empty()).then_some(row.metadata),
        state: word(view.shown),
        envd_version: row.envd_version,
        volume_mounts: Vec::new(),
    }
}
