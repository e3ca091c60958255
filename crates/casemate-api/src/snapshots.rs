//! `GET /snapshots`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use casemate_control::sandboxes::snapshot::{ListSnapshots, SnapshotView};
use casemate_types::SandboxId;
use casemate_types::limits::PAGE_ROWS_MAX;
use casemate_wire::{ErrorBody, SnapshotInfo};

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::Params;
use crate::router::ApiState;

const NEXT_TOKEN: HeaderName = HeaderName::from_static("x-next-token");

#[utoipa::path(
    get, path = "/snapshots", tag = "snapshots",
    params(
        ("sandboxID" = Option<String>, Query, description = "Of which they were taken"),
        ("name" = Option<String>, Query, description = "Name or id, with or without a tag"),
        ("nextToken" = Option<String>, Query),
        ("limit" = Option<i32>, Query, minimum = 1, maximum = 100),
    ),
    responses(
        (status = 200, body = Vec<SnapshotInfo>, headers(
            ("X-Next-Token" = String, description = "Only when there is more"),
        )),
        (status = "default", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Team(caller): Team,
    params: Params,
) -> Result<(HeaderMap, Json<Vec<SnapshotInfo>>), ApiError> {
    let page = state
        .control
        .list_snapshots(&caller, &ask(&params)?)
        .await?;
    let mut headers = HeaderMap::new();
    if let Some(token) = page.next_token
        && let Ok(token) = HeaderValue::from_str(&token)
    {
        headers.insert(NEXT_TOKEN, token);
    }
    Ok((
        headers,
        Json(page.snapshots.into_iter().map(shown).collect()),
    ))
}

fn ask(params: &Params) -> Result<ListSnapshots, ApiError> {
    let rows_max = i32::try_from(PAGE_ROWS_MAX).unwrap_or(i32::MAX);
    let sandbox = params.text("sandboxID").map(SandboxId::parse_path);
    Ok(ListSnapshots {
        sandbox: sandbox
            .transpose()
            .map_err(|_| ApiError::bad_request("Invalid sandbox ID"))?,
        name: params.text("name").map(Into::into),
        limit: params.int32("limit", 1, rows_max)?.unwrap_or(PAGE_ROWS_MAX),
        next_token: params.text("nextToken").map(Into::into),
    })
}

pub(crate) fn shown(view: SnapshotView) -> SnapshotInfo {
    SnapshotInfo {
        snapshot_id: view.id,
        names: view.names,
    }
}
