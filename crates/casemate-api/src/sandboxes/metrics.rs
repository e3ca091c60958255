//! `GET /sandboxes/{sandboxID}/metrics` and `GET /sandboxes/metrics`.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use casemate_control::metrics::AskedRange;
use casemate_types::{SandboxId, Timestamp, Usage};
use casemate_wire::{ErrorBody, SandboxMetric, SandboxesMetrics};

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{Params, SandboxPath, bad_param};
use crate::router::ApiState;

#[utoipa::path(
    get, path = "/sandboxes/{sandboxID}/metrics", tag = "sandboxes",
    params(
        ("sandboxID" = String, Path),
        ("start" = Option<i64>, Query, minimum = 0, description = "Seconds; default the first sample"),
        ("end" = Option<i64>, Query, minimum = 0, description = "Seconds; default the last sample"),
    ),
    responses((status = 200, body = Vec<SandboxMetric>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn one(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    params: Params,
) -> Result<Json<Vec<SandboxMetric>>, ApiError> {
    let asked = asked_range(&params)?;
    let points = state.control.sandbox_metrics(&caller, &id, asked).await?;
    let shown = points.iter().map(|point| shown(point.at, &point.usage));
    Ok(Json(shown.collect()))
}

#[utoipa::path(
    get, path = "/sandboxes/metrics", tag = "sandboxes",
    params(("sandbox_ids" = String, Query, description = "Comma list, at most 100")),
    responses((status = 200, body = SandboxesMetrics), (status = "default", body = ErrorBody))
)]
pub(crate) async fn many(
    State(state): State<ApiState>,
    Team(caller): Team,
    params: Params,
) -> Result<Json<SandboxesMetrics>, ApiError> {
    let ids = ids(params.required("sandbox_ids")?)?;
    let samples = state.control.sandboxes_metrics(&caller, &ids).await?;
    let shown = samples
        .iter()
        .map(|sample| (sample.sandbox.to_string(), shown(sample.at, &sample.usage)));
    Ok(Json(SandboxesMetrics {
        sandboxes: shown.collect(),
    }))
}

fn ids(list: &str) -> Result<Vec<SandboxId>, ApiError> {
    let parse =
        |text| SandboxId::parse_path(text).map_err(|_| ApiError::bad_request("Invalid sandbox ID"));
    let ids: Vec<_> = list.split(',').map(parse).collect::<Result<_, _>>()?;
    if ids.iter().collect::<BTreeSet<_>>().len() < ids.len() {
        return Err(bad_param("sandbox_ids", "duplicate items found"));
    }
    Ok(ids)
}

/// `start` and `end`, in seconds.
pub(crate) fn asked_range(params: &Params) -> Result<AskedRange, ApiError> {
    Ok(AskedRange {
        start: params.seconds("start")?,
        end: params.seconds("end")?,
    })
}

fn shown(at: Timestamp, usage: &Usage) -> SandboxMetric {
    SandboxMetric {
        timestamp: at,
        timestamp_unix: at.as_second(),
        cpu_count: usage.vcpus,
        cpu_used_pct: usage.cpu_used_percent,
        mem_used: usage.memory_used_bytes,
        mem_total: usage.memory_total_bytes,
        mem_cache: usage.memory_cache_bytes,
        disk_used: usage.disk_used_bytes,
        disk_total: usage.disk_total_bytes,
    }
}
