//! `GET /sandboxes/{sandboxID}/logs` and `GET /v2/sandboxes/{sandboxID}/logs`.

use axum::Json;
use axum::extract::State;
use casemate_control::logs::ReadLogs;
use casemate_history::{LogDirection, LogEntry, LogLevel};
use casemate_wire::{ErrorBody, SandboxLog, SandboxLogEntry, SandboxLogs, SandboxLogsV2};
use serde_json::{Map, Value};

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{Params, SandboxPath, bad_param};
use crate::router::ApiState;

const LIMIT_DEFAULT: u32 = 1000;
const SEARCH_CHARS_MAX: usize = 256;

#[utoipa::path(
    get, path = "/sandboxes/{sandboxID}/logs", tag = "sandboxes",
    params(
        ("sandboxID" = String, Path),
        ("start" = Option<i64>, Query, minimum = 0, description = "Milliseconds; default 7 days ago"),
        ("limit" = Option<i32>, Query, minimum = 0, description = "Default 1000"),
    ),
    responses((status = 200, body = SandboxLogs), (status = "default", body = ErrorBody))
)]
pub(crate) async fn v1(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    params: Params,
) -> Result<Json<SandboxLogs>, ApiError> {
    let ask = ReadLogs {
        cursor: params.milliseconds("start")?,
        direction: LogDirection::Forward,
        level_min: LogLevel::Debug,
        search: None,
        limit: params.int32("limit", 0, i32::MAX)?.unwrap_or(LIMIT_DEFAULT),
    };
    let entries = state.control.read_logs(&caller, &id, ask).await?;
    Ok(Json(SandboxLogs {
        logs: entries.iter().map(line).collect(),
        log_entries: entries.into_iter().map(shown).collect(),
    }))
}

#[utoipa::path(
    get, path = "/v2/sandboxes/{sandboxID}/logs", tag = "sandboxes",
    params(
        ("sandboxID" = String, Path),
        ("cursor" = Option<i64>, Query, minimum = 0, description = "Milliseconds; default now, or 7 days ago when forward"),
        ("limit" = Option<i32>, Query, minimum = 0, maximum = 1000, description = "Default 1000"),
        ("direction" = Option<String>, Query, description = "`forward` or `backward` (default)"),
        ("level" = Option<String>, Query, description = "At least `debug`, `info`, `warn` or `error`"),
        ("search" = Option<String>, Query, max_length = 256, description = "Part of the message, case-sensitive"),
    ),
    responses((status = 200, body = SandboxLogsV2), (status = "default", body = ErrorBody))
)]
pub(crate) async fn v2(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    params: Params,
) -> Result<Json<SandboxLogsV2>, ApiError> {
    let ask = ReadLogs {
        cursor: params.milliseconds("cursor")?,
        direction: direction(&params)?,
        level_min: level(&params)?,
        search: search(&params)?,
        limit: params.int32("limit", 0, 1000)?.unwrap_or(LIMIT_DEFAULT),
    };
    let entries = state.control.read_logs(&caller, &id, ask).await?;
    let logs = entries.into_iter().map(shown).collect();
    Ok(Json(SandboxLogsV2 { logs }))
}

fn direction(params: &Params) -> Result<LogDirection, ApiError> {
    match params.text("direction") {
        None | Some("backward") => Ok(LogDirection::Backward),
        Some("forward") => Ok(LogDirection::Forward),
        Some(other) => {
            let what = format_args!("value \"{other}\" is neither \"forward\" nor \"backward\"");
            Err(bad_param("direction", what))
        }
    }
}

pub(crate) fn level(params: &Params) -> Result<LogLevel, ApiError> {
    match params.text("level") {
        None | Some("debug") => Ok(LogLevel::Debug),
        Some("info") => Ok(LogLevel::Info),
        Some("warn") => Ok(LogLevel::Warn),
        Some("error") => Ok(LogLevel::Error),
        Some(other) => {
            let what = format_args!(
                "value \"{other}\" is neither \"debug\", \"info\", \"warn\" nor \"error\""
            );
            Err(bad_param("level", what))
        }
    }
}

fn search(params: &Params) -> Result<Option<String>, ApiError> {
    match params.text("search") {
        Some(text) if text.chars().count() > SEARCH_CHARS_MAX => {
            let what = format_args!("maximum string length is {SEARCH_CHARS_MAX}");
            Err(bad_param("search", what))
        }
        text => Ok(text.filter(|text| !text.is_empty()).map(Into::into)),
    }
}

pub(crate) fn word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

fn shown(entry: LogEntry) -> SandboxLogEntry {
    SandboxLogEntry {
        timestamp: entry.at,
        level: word(entry.level).into(),
        message: entry.message,
        fields: entry.fields,
    }
}

/// One JSON object: E2B's command line ends with an error at anything else.
fn line(entry: &LogEntry) -> SandboxLog {
    let mut object = Map::new();
    for (name, value) in &entry.fields {
        object.insert(name.clone(), Value::from(value.as_str()));
    }
    object.insert("level".into(), word(entry.level).into());
    object.insert("message".into(), entry.message.as_str().into());
    SandboxLog {
        timestamp: entry.at,
        line: Value::Object(object).to_string(),
    }
}
