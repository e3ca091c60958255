//! What a sandbox has consumed, as the host counts it.

use std::time::Duration;

use casemate_types::SandboxId;

/// Figures of one sandbox. Nothing in it comes from inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumption {
    /// Of all its processors, since it was made; never less than before.
    pub cpu_time: Duration,
    /// Without [`Self::memory_cache_bytes`].
    pub memory_used_bytes: u64,
    /// Pages of files that the kernel takes back when memory runs short.
    pub memory_cache_bytes: u64,
    /// Written to its root; `None` where nothing counts it, and walking files would be the only
    /// way. It may lag behind what was written by some seconds.
    pub disk_used_bytes: Option<u64>,
}

/// One sandbox at one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub sandbox: SandboxId,
    pub consumption: Consumption,
    /// Its programs did something since the look before.
    pub stirred: bool,
    /// Processes that the kernel ended since the sandbox was made because its memory was full.
    pub memory_kills: u64,
}
