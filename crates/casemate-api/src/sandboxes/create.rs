//! `POST /sandboxes` and `POST /v2/sandboxes`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use casemate_control::auth::TeamCaller;
use casemate_control::sandboxes::create::{CreateSandbox, IdempotencyKey};
use casemate_control::sandboxes::network::NetworkAsk;
use casemate_store::RequestHash;
use casemate_types::limits::LIFE_SECONDS_DEFAULT_V1;
use casemate_wire::{ErrorBody, Iam, NetworkConfig, NewSandbox, NewSandboxV2, Sandbox};
use sha2::{Digest, Sha256};

use super::created;
use crate::auth::{Headers, Team};
use crate::error::ApiError;
use crate::extract::JsonBody;
use crate::router::ApiState;

const IDEMPOTENCY_KEY: &str = "idempotency-key";

type Answer = Result<(StatusCode, Json<Sandbox>), ApiError>;

#[utoipa::path(
    post, path = "/sandboxes", tag = "sandboxes", request_body = NewSandbox,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 of `[a-z0-9-]`")),
    responses((status = 201, body = Sandbox), (status = "default", body = ErrorBody))
)]
pub(crate) async fn v1(
    State(state): State<ApiState>,
    Team(caller): Team,
    Headers(headers): Headers,
    body: JsonBody<NewSandbox>,
) -> Answer {
    let request = digest(b"v1", &body.raw);
    create(&state, caller, &headers, request, ask_v1(body.value)).await
}

#[utoipa::path(
    post, path = "/v2/sandboxes", tag = "sandboxes", request_body = NewSandboxV2,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 of `[a-z0-9-]`")),
    responses((status = 201, body = Sandbox), (status = "default", body = ErrorBody))
)]
pub(crate) async fn v2(
    State(state): State<ApiState>,
    Team(caller): Team,
    Headers(headers): Headers,
    body: JsonBody<NewSandboxV2>,
) -> Answer {
    let request = digest(b"v2", &body.raw);
    let ask = ask_v2(body.value, state.control.life_seconds_default());
    create(&state, caller, &headers, request, ask).await
}

async fn create(
    state: &ApiState,
    caller: TeamCaller,
    headers: &HeaderMap,
    request: RequestHash,
    ask: CreateSandbox,
) -> Answer {
    let key = idempotency_key(headers)?;
    let is_keyed = key.is_some();
    let control = state.control.clone();
    let work = async move {
        match key {
            None => control.create(&caller, ask).await,
            Some(key) => {
                control
                    .create_idempotent(&caller, &key, &request, ask)
                    .await
            }
        }
    };
    let made = state.control.tasks().detached(work).await?;
    let made = made.map_err(|error| match is_keyed {
        true => ApiError::from(error).made_once_by_key(),
        false => ApiError::from(error).made_once(),
    })?;
    Ok((StatusCode::CREATED, Json(created(made))))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    IdempotencyKey::parse(text)
        .map(Some)
        .map_err(|error| ApiError::validation(format_args!("header has an error: {error}")))
}

/// The same key on the other operation is another request: the defaults differ.
fn digest(operation: &[u8], body: &[u8]) -> RequestHash {
    let mut hash = Sha256::new();
    hash.update(operation);
    hash.update([0]);
    hash.update(body);
    hash.finalize().into()
}

fn ask_v1(body: NewSandbox) -> CreateSandbox {
    CreateSandbox {
        template: body.template_id,
        timeout_seconds: body.timeout.unwrap_or(LIFE_SECONDS_DEFAULT_V1),
        auto_pause: body.auto_pause.unwrap_or(false),
        auto_pause_memory: body.auto_pause_memory.unwrap_or(true),
        auto_resume: body.auto_resume.is_some_and(|resume| resume.enabled),
        network: network(body.network, body.allow_internet_access),
        metadata: body.metadata.unwrap_or_default(),
        envs: body.env_vars.unwrap_or_default(),
        iam_tokens: iam_tokens(body.iam),
        volume_mounts: body.volume_mounts.map_or(0, |mounts| mounts.len()),
    }
}

fn ask_v2(body: NewSandboxV2, seconds_default: u32) -> CreateSandbox {
    CreateSandbox {
        template: body.template_id,
        timeout_seconds: body.timeout.unwrap_or(seconds_default),
        auto_pause: body.auto_pause.unwrap_or(false),
        auto_pause_memory: body.auto_pause_memory.unwrap_or(true),
        auto_resume: body.auto_resume.is_some_and(|resume| resume.enabled),
        network: network(body.network, body.allow_internet_access),
        metadata: body.metadata.unwrap_or_default(),
        envs: body.env_vars.unwrap_or_default(),
        iam_tokens: iam_tokens(body.iam),
        volume_mounts: body.volume_mounts.map_or(0, |mounts| mounts.len()),
    }
}

fn network(config: Option<NetworkConfig>, allow_internet_access: Option<bool>) -> NetworkAsk {
    let config = config.unwrap_or_default();
    NetworkAsk {
        allow_internet_access,
        allow_out: config.allow_out,
        deny_out: config.deny_out,
        allow_public_traffic: config.allow_public_traffic,
        mask_request_host: config.mask_request_host,
        https_ports: config.https_ports.unwrap_or_default(),
        dns_servers: config.dns_servers,
        egress_proxy: config.egress_proxy.is_some(),
        rules: config.rules.is_some_and(|rules| !rules.is_empty()),
    }
}

/// An empty map equals none.
fn iam_tokens(iam: Option<Iam>) -> usize {
    let tokens = iam.and_then(|iam| iam.tokens);
    tokens.map_or(0, |tokens| tokens.len())
}
