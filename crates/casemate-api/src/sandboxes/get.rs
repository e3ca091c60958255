//! `GET /sandboxes/{sandboxID}`.

use axum::Json;
use axum::extract::State;
use casemate_control::sandboxes::{ChangeError, SandboxView};
use casemate_store::OnTimeout;
use casemate_types::NetworkPolicy;
use casemate_wire::{CLIENT_ID, ErrorBody, Lifecycle, NetworkShown, SandboxDetail, State as Word};

use super::micros;
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
    match state.control.get_sandbox(&caller, &id).await? {
        Some(view) => Ok(Json(shown(view))),
        None => Err(ApiError::not_found(ChangeError::NotFound(id))),
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
        domain: Some(view.domain),
        cpu_count: row.resources.vcpus,
        memory_mb: row.resources.memory_mib,
        disk_size_mb: row.resources.disk_mib,
        metadata: (!row.metadata.is_empty()).then_some(row.metadata),
        state: Word::Running,
        network: network(row.network),
        lifecycle: Some(Lifecycle {
            auto_resume: false,
            on_timeout: match row.on_timeout {
                OnTimeout::Kill => casemate_wire::OnTimeout::Kill,
            },
        }),
        volume_mounts: Vec::new(),
    }
}

/// Absent when it was never set.
fn network(policy: NetworkPolicy) -> Option<NetworkShown> {
    let lists = [&policy.allow_out, &policy.deny_out, &policy.dns_servers];
    let said = lists.iter().any(|list| list.is_some());
    said.then_some(NetworkShown {
        allow_public_traffic: None,
        allow_out: policy.allow_out,
        deny_out: policy.deny_out,
        dns_servers: policy.dns_servers,
    })
}
