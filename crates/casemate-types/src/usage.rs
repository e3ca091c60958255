//! What a sandbox uses of its limits, at a moment.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::steady::moment;
use crate::{SandboxId, TeamId};

/// Figures of one sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    pub vcpus: u32,
    /// Of all its virtual processors together, 0 to 100, since the sample before.
    pub cpu_used_percent: f64,
    /// Without what the kernel could take back at once.
    pub memory_used_bytes: u64,
    pub memory_total_bytes: u64,
    /// Pages of files, which the kernel takes back when memory runs short.
    pub memory_cache_bytes: u64,
    /// Written to its root file system; 0 where nothing counts it.
    pub disk_used_bytes: u64,
    pub disk_total_bytes: u64,
}

/// A sandbox's figures, and whose they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub sandbox: SandboxId,
    pub team: TeamId,
    #[serde(deserialize_with = "moment")]
    pub at: Timestamp,
    pub usage: Usage,
}
