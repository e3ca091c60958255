//! What an isolation kind can do, as published by `doctor`, `GET /nodes` and the documents.

use serde::{Deserialize, Serialize};

/// The isolation kinds that have a place; a node runs those that work on it (decision 16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolationKind {
    Namespaces,
    Gvisor,
    Firecracker,
}

/// How a sandbox's disk limit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskLimit {
    /// Writes beyond it fail.
    Enforced,
    /// Each file is bounded, their sum is not.
    Advisory,
}

/// Declared abilities; a request beyond them is refused, never weakened in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub kind: IsolationKind,
    /// A kernel of its own, or the host's.
    pub own_kernel: bool,
    pub disk_limit: DiskLimit,
    /// Memory survives a snapshot.
    pub memory_snapshots: bool,
}
