//! `PUT /sandboxes/{sandboxID}/network`.

use axum::extract::State;
use axum::http::StatusCode;
use casemate_control::sandboxes::network::NetworkAsk;
use casemate_wire::{ErrorBody, NetworkUpdate};

use crate::auth::Team;
use crate::error::ApiError;
use crate::extract::{OptionalJson, SandboxPath};
use crate::router::ApiState;

#[utoipa::path(
    put, path = "/sandboxes/{sandboxID}/network", tag = "sandboxes",
    request_body = NetworkUpdate, params(("sandboxID" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(crate) async fn update(
    State(state): State<ApiState>,
    Team(caller): Team,
    SandboxPath(id): SandboxPath,
    OptionalJson(body): OptionalJson<NetworkUpdate>,
) -> Result<StatusCode, ApiError> {
    let ask = ask(body.unwrap_or_default());
    let control = state.control.clone();
    let work = async move { control.update_network(&caller, &id, &ask).await };
    let updated = state.control.tasks().detached(work).await?;
    updated.map_err(|error| ApiError::of_change("Error updating sandbox network", error))?;
    Ok(StatusCode::NO_CONTENT)
}

fn ask(body: NetworkUpdate) -> NetworkAsk {
    NetworkAsk {
        allow_internet_access: body.allow_internet_access,
        allow_out: body.allow_out,
        deny_out: body.deny_out,
        allow_public_traffic: None,
        mask_request_host: None,
        https_ports: Vec::new(),
        dns_servers: body.dns_servers,
        egress_proxy: body.egress_proxy.is_some(),
        rules: body.rules.is_some_and(|rules| !rules.is_empty()),
    }
}
