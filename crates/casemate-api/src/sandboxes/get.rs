//! `GET /sandboxes/{sandboxID}`.

use axum::Json;
use axum::extract::State;
use casemate_control::sandboxes::{ChangeError, SandboxView, Shown};
use casemate_types::{Ingress, Kept, NetworkPolicy, OnTimeout};
use casemate_wire::{CLIENT_ID, ErrorBody, Lifecycle, NetworkShown, PauseMode, SandboxDetail};

use super::{micros, word};
use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::SandboxPath;
use crate::router::ApiState;

#[utoipa::path(
    get, path = "/sandboxes/{sandboxID}", tag = "sandboxes",
    params(("sandboxID" = String, Path)),
    responses((status = 200, body = SandboxDetail), (status = "default", body = ErrorBody))
)]
pub(crate) async fn get(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
) -> Result<Json<SandboxDetail>, ApiError> {
    match state.control.get_sandbox(&caller, &id).await {
        Ok(Some(view)) => Ok(Json(shown(view))),
        Ok(None) => Err(ApiError::not_found(ChangeError::NotFound(id))),
        Err(error) => Err(ApiError::of_change("Error getting sandbox", error)),
    }
}

fn shown(view: SandboxView) -> SandboxDetail {
    let row = view.sandbox;
    SandboxDetail {
        template_id: row.template.to_string(),
        sandbox_id: row.id.to_string(),
        alias: row.alias,
        client_id: CLIENT_ID.into(),
        started_at: micros(view.started_at),
        end_at: micros(view.ends_at),
        envd_version: row.envd_version,
        envd_access_token: view.access_token,
        allow_internet_access: row.network.allow_internet_access,
        domain: (view.shown == Shown::Running).then_some(view.domain),
        cpu_count: row.resources.vcpus,
        memory_mb: row.resources.memory_mib,
        disk_size_mb: row.resources.disk_mib,
        metadata: (!row.metadata.is_empty()).then_some(row.metadata),
        state: word(view.shown),
        network: network(row.network, row.ingress),
        lifecycle: Some(Lifecycle {
            auto_resume: row.auto_resume,
            on_timeout: match row.on_timeout {
                OnTimeout::Kill => casemate_wire::OnTimeout::Kill,
                OnTimeout::Pause(_) => casemate_wire::OnTimeout::Pause,
            },
        }),
        pause_mode: match view.shown {
            Shown::Paused(Some(Kept::Memory)) => Some(PauseMode::Full),
            Shown::Paused(Some(Kept::Files)) => Some(PauseMode::Filesystem),
            Shown::Paused(None) | Shown::Running => None,
        },
        volume_mounts: Vec::new(),
    }
}

/// Absent when it was never set.
fn network(policy: NetworkPolicy, ingress: Ingress) -> Option<NetworkShown> {
    let shown = NetworkShown {
        allow_public_traffic: ingress.allow_public_traffic,
        allow_out: policy.allow_out,
        deny_out: policy.deny_out,
        dns_servers: policy.dns_servers,
        mask_request_host: ingress.mask_request_host,
        https_ports: ingress.https_ports,
    };
    (shown != NetworkShown::default()).then_some(shown)
}
