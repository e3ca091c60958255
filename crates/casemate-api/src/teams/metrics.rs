//! `GET /teams/{teamID}/metrics` and `GET /teams/{teamID}/metrics/max`.

use axum::Json;
use axum::extract::State;
use casemate_control::metrics::TeamMetric as Metric;
use casemate_wire::{ErrorBody, MaxTeamMetric, TeamMetric};

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{Params, TeamPath, bad_param};
use crate::router::ApiState;
use crate::sandboxes::metrics::asked_range;

#[utoipa::path(
    get, path = "/teams/{teamID}/metrics", tag = "teams",
    params(
        ("teamID" = String, Path),
        ("start" = Option<i64>, Query, minimum = 0, description = "Seconds; default 7 days before the end"),
        ("end" = Option<i64>, Query, minimum = 0, description = "Seconds; default now"),
    ),
    responses((status = 200, body = Vec<TeamMetric>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Team(caller): Team,
    TeamPath(team): TeamPath,
    params: Params,
) -> Result<Json<Vec<TeamMetric>>, ApiError> {
    let asked = asked_range(&params)?;
    let points = state.control.team_metrics(&caller, &team, asked).await?;
    let shown = points.iter().map(|point| TeamMetric {
        timestamp: point.at,
        timestamp_unix: point.at.as_second(),
        concurrent_sandboxes: point.concurrent,
        sandbox_start_rate: point.start_rate(),
    });
    Ok(Json(shown.collect()))
}

#[utoipa::path(
    get, path = "/teams/{teamID}/metrics/max", tag = "teams",
    params(
        ("teamID" = String, Path),
        ("start" = Option<i64>, Query, minimum = 0, description = "Seconds; default 7 days before the end"),
        ("end" = Option<i64>, Query, minimum = 0, description = "Seconds; default now"),
        ("metric" = String, Query, description = "`concurrent_sandboxes` or `sandbox_start_rate`"),
    ),
    responses((status = 200, body = MaxTeamMetric), (status = "default", body = ErrorBody))
)]
pub(crate) async fn max(
    State(state): State<ApiState>,
    Team(caller): Team,
    TeamPath(team): TeamPath,
    params: Params,
) -> Result<Json<MaxTeamMetric>, ApiError> {
    let metric = match params.required("metric")? {
        "concurrent_sandboxes" => Metric::ConcurrentSandboxes,
        "sandbox_start_rate" => Metric::SandboxStartRate,
        other => {
            let what = format_args!(
                "value \"{other}\" is neither \"concurrent_sandboxes\" nor \"sandbox_start_rate\""
            );
            return Err(bad_param("metric", what));
        }
    };
    let asked = asked_range(&params)?;
    let (at, value) = state
        .control
        .team_metrics_max(&caller, &team, asked, metric)
        .await?;
    Ok(Json(MaxTeamMetric {
        timestamp: at,
        timestamp_unix: at.as_second(),
        value,
    }))
}
