//! `GET /events/sandboxes` and `GET /events/sandboxes/{sandboxID}`.
//!
//! E2B's open API has no such operation; the payload is the one of its events and webhooks.

use axum::Json;
use axum::extract::State;
use casemate_control::events::ListEvents;
use casemate_history::{EventKind, LifecycleEvent};
use casemate_types::SandboxId;
use casemate_wire::{ErrorBody, SandboxEvent};

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{Params, SandboxPath, bad_param};
use crate::router::ApiState;

const LIMIT_DEFAULT: u32 = 10;
const LIMIT_MAX: i32 = 100;

#[utoipa::path(
    get, path = "/events/sandboxes", tag = "events",
    params(
        ("offset" = Option<i32>, Query, minimum = 0),
        ("limit" = Option<i32>, Query, minimum = 1, maximum = 100),
        ("orderAsc" = Option<bool>, Query, description = "Oldest first; default false"),
    ),
    responses((status = 200, body = Vec<SandboxEvent>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn of_team(
    State(state): State<ApiState>,
    Team(caller): Team,
    params: Params,
) -> Result<Json<Vec<SandboxEvent>>, ApiError> {
    let events = state
        .control
        .list_events(&caller, ask(&params, None)?)
        .await?;
    Ok(Json(shown(&state, events)))
}

#[utoipa::path(
    get, path = "/events/sandboxes/{sandboxID}", tag = "events",
    params(
        ("sandboxID" = String, Path),
        ("offset" = Option<i32>, Query, minimum = 0),
        ("limit" = Option<i32>, Query, minimum = 1, maximum = 100),
        ("orderAsc" = Option<bool>, Query, description = "Oldest first; default false"),
    ),
    responses((status = 200, body = Vec<SandboxEvent>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn of_sandbox(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    params: Params,
) -> Result<Json<Vec<SandboxEvent>>, ApiError> {
    let ask = ask(&params, Some(id))?;
    let events = state.control.list_events(&caller, ask).await?;
    Ok(Json(shown(&state, events)))
}

fn ask(params: &Params, sandbox: Option<SandboxId>) -> Result<ListEvents, ApiError> {
    let oldest_first = match params.text("orderAsc") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let what = format_args!("value \"{other}\" is neither true nor false");
            return Err(bad_param("orderAsc", what));
        }
    };
    Ok(ListEvents {
        sandbox,
        oldest_first,
        offset: params.int32("offset", 0, i32::MAX)?.unwrap_or(0),
        limit: params
            .int32("limit", 1, LIMIT_MAX)?
            .unwrap_or(LIMIT_DEFAULT),
    })
}

fn shown(state: &ApiState, events: Vec<LifecycleEvent>) -> Vec<SandboxEvent> {
    let kept_days = state.control.events_kept_days();
    let show = |event: LifecycleEvent| {
        let (word, label) = match event.kind {
            EventKind::Created => ("created", "create"),
            EventKind::Killed => ("killed", "kill"),
            EventKind::Updated => ("updated", "update"),
            EventKind::Paused => ("paused", "pause"),
            EventKind::Resumed => ("resumed", "resume"),
            EventKind::Checkpointed => ("checkpointed", "checkpoint"),
        };
        SandboxEvent {
            id: event.id.to_string(),
            version: "v2".into(),
            kind: format!("sandbox.lifecycle.{word}"),
            timestamp: event.at,
            event_category: "lifecycle".into(),
            event_label: label.into(),
            event_data: (!event.data.is_null()).then_some(event.data),
            sandbox_id: event.sandbox.to_string(),
            sandbox_execution_id: event.execution.to_string(),
            sandbox_template_id: event.template.to_string(),
            sandbox_build_id: event
                .build
                .map(|build| build.to_string())
                .unwrap_or_default(),
            sandbox_team_id: event.team.to_string(),
            events_ttl_days: kept_days,
        }
    };
    events.into_iter().map(show).collect()
}
