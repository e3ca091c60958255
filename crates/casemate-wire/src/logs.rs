use std::collections::BTreeMap;

use casemate_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was logged of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxLogEntry {
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    /// `debug`, `info`, `warn`, `error`.
    pub level: String,
    pub message: String,
    pub fields: BTreeMap<String, String>,
}

/// The same as one line of JSON text, with at least `level`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxLog {
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    pub line: String,
}

/// Answer of version 1, oldest first in both forms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxLogs {
    pub logs: Vec<SandboxLog>,
    pub log_entries: Vec<SandboxLogEntry>,
}

/// Answer of version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxLogsV2 {
    pub logs: Vec<SandboxLogEntry>,
}
