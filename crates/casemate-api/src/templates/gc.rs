//! `POST /builds/gc`, which E2B has not: giving back what builds left and nothing needs.
//!
//! Not below `/templates`, where its name would hide a template's.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use casemate_control::templates::gc::TrimAsk;
use casemate_store::TrimMode;
use casemate_wire::{CollectBuilds, CollectedBuilds, ErrorBody};

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::OptionalJson;
use crate::router::ApiState;

/// Removes the team's results of steps, uploads and builds that nothing needs.
#[utoipa::path(
    post, path = "/builds/gc", tag = "templates", request_body = CollectBuilds,
    responses((status = 200, body = CollectedBuilds), (status = "default", body = ErrorBody))
)]
pub(crate) async fn gc(
    State(state): State<ApiState>,
    Team(caller): Team,
    OptionalJson(body): OptionalJson<CollectBuilds>,
) -> Result<Json<CollectedBuilds>, ApiError> {
    let body = body.unwrap_or_default();
    let ask = TrimAsk {
        unused_for: Duration::from_secs(body.older_than_seconds.unwrap_or(0).into()),
        mode: match body.dry_run {
            Some(true) => TrimMode::Rehearse,
            Some(false) | None => TrimMode::CarryOut,
        },
    };
    let control = state.control.clone();
    let work = async move { control.trim_builds(&caller, ask).await };
    let freed = state.control.tasks().detached(work).await??;
    Ok(Json(CollectedBuilds {
        builds: freed.builds,
        steps: freed.steps,
        layers: freed.layers,
        uploads: freed.uploads,
        bytes: freed.bytes,
    }))
}
