use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Sandbox;
use crate::de::{natural_opt, non_null};
use crate::error::ErrorBody;

/// Body of `POST /sandboxes/{sandboxID}/snapshots`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SandboxSnapshotRequest)]
pub struct NewSnapshot {
    /// `[slug/]alias[:tag]`; without one it is found by its id alone.
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// `true` is refused where memory cannot be kept; left out, what can be kept is.
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub memory: Option<bool>,
}

/// A snapshot as its team finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SnapshotInfo)]
pub struct SnapshotInfo {
    /// What a create takes as its template.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    pub names: Vec<String>,
}

/// Body of `POST /sandboxes/{sandboxID}/fork`, which may be left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SandboxForkRequest)]
pub struct ForkSandbox {
    /// Seconds to live; 15 by default.
    #[serde(
        default,
        deserialize_with = "natural_opt",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false, minimum = 0)]
    pub timeout: Option<u32>,
    /// 1 by default.
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false, minimum = 1, maximum = 100)]
    pub count: Option<i32>,
}

/// One fork, or why there is none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SandboxForkResult)]
pub enum ForkResult {
    Sandbox(Sandbox),
    Error(ErrorBody),
}
