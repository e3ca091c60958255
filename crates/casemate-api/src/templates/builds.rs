//! `GET /templates/{templateID}/builds/{buildID}/status` and `…/logs`.

use axum::Json;
use axum::extract::State;
use casemate_control::templates::Asker;
use casemate_control::templates::builds::{BuildLogsAsk, StatusAsk};
use casemate_history::{BuildLogEntry as Line, LogDirection};
use casemate_types::limits::BUILD_LOG_LINES_MAX;
use casemate_types::{BuildFailure, BuildStatus};
use casemate_wire::{
    BuildLogEntry, BuildStatusReason, ErrorBody, TemplateBuildInfo, TemplateBuildLogs,
};

use super::word;
use crate::auth::TeamOrUser;
use crate::error::ApiError;
use crate::extract::{Params, TwoSegments, bad_param};
use crate::router::ApiState;
use crate::sandboxes::logs::{self, level};

/// Where a build stands, with the next lines of its log.
#[utoipa::path(
    get, path = "/templates/{templateID}/builds/{buildID}/status", tag = "templates",
    params(
        ("templateID" = String, Path),
        ("buildID" = String, Path, description = "A UUID"),
        ("logsOffset" = Option<i32>, Query, minimum = 0, description = "Lines that the client has"),
        ("limit" = Option<i32>, Query, minimum = 0, maximum = 100),
        ("level" = Option<String>, Query, description = "At least `debug`, `info`, `warn`, `error`"),
    ),
    responses((status = 200, body = TemplateBuildInfo), (status = "default", body = ErrorBody))
)]
pub(crate) async fn status(
    State(state): State<ApiState>,
    caller: TeamOrUser,
    TwoSegments(template, build): TwoSegments,
    params: Params,
) -> Result<Json<TemplateBuildInfo>, ApiError> {
    let ask = StatusAsk {
        offset: params.int32("logsOffset", 0, i32::MAX)?.unwrap_or(0).into(),
        limit: limit(&params)?,
        level_min: level(&params)?,
    };
    let asker = Asker::from(caller);
    let view = state.control.build_status(&asker, &template, &build, ask);
    let view = view.await?;
    let lines: Vec<BuildLogEntry> = view.lines.into_iter().map(shown).collect();
    let failure = match view.record.status {
        BuildStatus::Failed => view.record.failure,
        BuildStatus::Waiting | BuildStatus::Building | BuildStatus::Ready => None,
    };
    Ok(Json(TemplateBuildInfo {
        template_id: template,
        build_id: build,
        status: word(view.record.status).into(),
        reason: failure.map(|failure| reason(failure, view.of_failed_step)),
        log_entries: lines,
        logs: Vec::new(),
    }))
}

/// The log of a build by time.
#[utoipa::path(
    get, path = "/templates/{templateID}/builds/{buildID}/logs", tag = "templates",
    params(
        ("templateID" = String, Path),
        ("buildID" = String, Path, description = "A UUID"),
        ("cursor" = Option<i64>, Query, minimum = 0, description = "Milliseconds, inclusive"),
        ("limit" = Option<i32>, Query, minimum = 0, maximum = 100),
        ("direction" = Option<String>, Query, description = "`forward` (default) or `backward`"),
        ("level" = Option<String>, Query, description = "At least `debug`, `info`, `warn`, `error`"),
        ("source" = Option<String>, Query, description = "`temporary` or `persistent`: the same here"),
    ),
    responses((status = 200, body = TemplateBuildLogs), (status = "default", body = ErrorBody))
)]
pub(crate) async fn logs(
    State(state): State<ApiState>,
    caller: TeamOrUser,
    TwoSegments(template, build): TwoSegments,
    params: Params,
) -> Result<Json<TemplateBuildLogs>, ApiError> {
    source(&params)?;
    let ask = BuildLogsAsk {
        cursor: params.milliseconds("cursor")?,
        direction: direction(&params)?,
        limit: limit(&params)?,
        level_min: level(&params)?,
    };
    let asker = Asker::from(caller);
    let lines = state.control.build_logs(&asker, &template, &build, ask);
    let logs = lines.await?.into_iter().map(shown).collect();
    Ok(Json(TemplateBuildLogs { logs }))
}

fn limit(params: &Params) -> Result<u32, ApiError> {
    let most = i32::try_from(BUILD_LOG_LINES_MAX).unwrap_or(i32::MAX);
    Ok(params
        .int32("limit", 0, most)?
        .unwrap_or(BUILD_LOG_LINES_MAX))
}

fn direction(params: &Params) -> Result<LogDirection, ApiError> {
    match params.text("direction") {
        None | Some("forward") => Ok(LogDirection::Forward),
        Some("backward") => Ok(LogDirection::Backward),
        Some(other) => {
            let what = format_args!("value \"{other}\" is neither \"forward\" nor \"backward\"");
            Err(bad_param("direction", what))
        }
    }
}

fn source(params: &Params) -> Result<(), ApiError> {
    match params.text("source") {
        None | Some("temporary" | "persistent") => Ok(()),
        Some(other) => {
            let what =
                format_args!("value \"{other}\" is neither \"temporary\" nor \"persistent\"");
            Err(bad_param("source", what))
        }
    }
}

fn shown(line: Line) -> BuildLogEntry {
    BuildLogEntry {
        timestamp: line.at,
        level: logs::word(line.level).into(),
        message: line.message,
        step: line.step,
    }
}

fn reason(failure: BuildFailure, of_its_step: Vec<Line>) -> BuildStatusReason {
    let entries = of_its_step.into_iter().map(shown).collect();
    BuildStatusReason {
        log_entries: failure.step.is_some().then_some(entries),
        message: failure.message,
        step: failure.step,
    }
}
