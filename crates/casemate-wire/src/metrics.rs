use std::collections::BTreeMap;

use casemate_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a sandbox used at a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxMetric {
    /// Deprecated, and still read by the SDKs.
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    /// In seconds.
    pub timestamp_unix: i64,
    pub cpu_count: u32,
    /// Percent of all processors together, 0 to 100.
    pub cpu_used_pct: f64,
    /// Bytes.
    pub mem_used: u64,
    pub mem_total: u64,
    pub mem_cache: u64,
    pub disk_used: u64,
    pub disk_total: u64,
}

/// The latest figures of some sandboxes, by their ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SandboxesMetrics {
    pub sandboxes: BTreeMap<String, SandboxMetric>,
}

/// What a team did up to a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TeamMetric {
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    pub timestamp_unix: i64,
    pub concurrent_sandboxes: u32,
    /// A second.
    pub sandbox_start_rate: f64,
}

/// The highest value of one of a team's metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaxTeamMetric {
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    pub timestamp_unix: i64,
    pub value: f64,
}
