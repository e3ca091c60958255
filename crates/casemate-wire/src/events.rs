use casemate_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A lifecycle event, with the payload that E2B's webhooks carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SandboxEvent {
    pub id: String,
    /// `v2`.
    pub version: String,
    /// `sandbox.lifecycle.created`, `.killed`, `.updated`.
    #[serde(rename = "type")]
    pub kind: String,
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    /// Of older readers: `lifecycle`.
    pub event_category: String,
    /// Of older readers: `create`, `kill`, `update`.
    pub event_label: String,
    /// What there is to say about it.
    pub event_data: Option<serde_json::Value>,
    pub sandbox_id: String,
    /// Of one run of the sandbox.
    pub sandbox_execution_id: String,
    pub sandbox_template_id: String,
    pub sandbox_build_id: String,
    pub sandbox_team_id: String,
    /// How long it is kept.
    pub events_ttl_days: u32,
}
