//! The sandbox operations, one file for each; what their answers share is here.

pub(crate) mod connect;
pub(crate) mod create;
pub(crate) mod fork;
pub(crate) mod get;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod network;
pub(crate) mod pause;
pub(crate) mod resume;
pub(crate) mod snapshot;
pub(crate) mod timeout;

use axum::http::HeaderName;
use casemate_control::sandboxes::create::Created;
use casemate_control::sandboxes::{SandboxView, Shown};
use casemate_types::{Kept, Timestamp};
use casemate_wire::{CLIENT_ID, Sandbox, State as Word};

/// The answer of create.
fn created(sandbox: Created) -> Sandbox {
    Sandbox {
        template_id: sandbox.template.to_string(),
        sandbox_id: sandbox.sandbox.to_string(),
        alias: sandbox.alias,
        client_id: CLIENT_ID.into(),
        envd_version: sandbox.envd_version,
        envd_access_token: Some(sandbox.access_token),
        traffic_access_token: sandbox.traffic_token,
        domain: Some(sandbox.domain),
    }
}

/// The answer of connect.
fn connected(view: SandboxView) -> Sandbox {
    Sandbox {
        template_id: view.sandbox.template.to_string(),
        sandbox_id: view.sandbox.id.to_string(),
        alias: view.sandbox.alias,
        client_id: CLIENT_ID.into(),
        envd_version: view.sandbox.envd_version,
        envd_access_token: view.access_token,
        traffic_access_token: view.traffic_token,
        domain: Some(view.domain),
    }
}

/// On answers of what may keep memory: what was kept (decision 15).
fn memory_header() -> [(HeaderName, &'static str); 1] {
    [(HeaderName::from_static("casemate-memory"), "files-only")]
}

/// The state's word.
fn word(shown: Shown) -> Word {
    match shown {
        Shown::Running => Word::Running,
        Shown::Paused(_) => Word::Paused,
    }
}

/// What `memory` of a request asks for.
fn kept(memory: Option<bool>) -> Kept {
    match memory {
        None | Some(true) => Kept::Memory,
        Some(false) => Kept::Files,
    }
}

/// To the microsecond, which is what is kept and what every client's parser reads.
fn micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}
