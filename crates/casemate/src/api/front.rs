//! The API behind the edge's listener: its bounds on clients, its end, and no sandboxes.

use std::sync::Arc;

use async_trait::async_trait;
use casemate_api::ApiState;
use casemate_catalog::Rates;
use casemate_control::Control;
use casemate_control::members::Members;
use casemate_edge::{
    DialFailure, Dialer, Dialled, Edge, Knock, LookupFailure, RouteTarget, Routes, WakeFailure,
    Wire,
};
use casemate_types::SandboxId;

use crate::config::Config;
use crate::control::front::{edge_config, metrics_access, rate_limits};
use crate::control::https::Https;

/// The API of this server.
pub(super) fn edge(
    config: &Config,
    control: Arc<Control>,
    members: Arc<Members>,
    rates: Arc<dyn Rates>,
    https: Option<&Https>,
) -> anyhow::Result<Edge> {
    let mut state = ApiState::new(control, metrics_access(config)).with_members(members);
    if let Some(url) = &config.public_url {
        state = state.with_public_url(url);
    }
    state = state.with_rate_limits(rate_limits(config), rates);
    if let Some(https) = https {
        state = state.with_certificate_end(https.certificate_end());
    }
    let mut api = casemate_api::router(state);
    if let Some(https) = https {
        api = https.with_challenges(api);
    }
    let nowhere = Arc::new(NoSandboxes);
    let dialer = Arc::clone(&nowhere);
    Ok(Edge::new(edge_config(config)?, nowhere, dialer, api))
}

/// Sandboxes are reached through edges: here is none.
struct NoSandboxes;

#[async_trait]
impl Routes for NoSandboxes {
    async fn lookup(&self, _: &SandboxId) -> Result<Option<RouteTarget>, LookupFailure> {
        Ok(None)
    }

    async fn wake(&self, _: &SandboxId, _: Knock) -> Result<(), WakeFailure> {
        Err(WakeFailure::NotFound)
    }
}

#[async_trait]
impl Dialer for NoSandboxes {
    async fn dial(&self, _: &SandboxId, _: u16) -> Result<Dialled, DialFailure> {
        Err(DialFailure::NotFound)
    }

    async fn speak_tls(&self, _: Box<dyn Wire>, _: &str) -> std::io::Result<Box<dyn Wire>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}
