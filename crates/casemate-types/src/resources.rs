//! What a sandbox may use.

use serde::{Deserialize, Serialize};

/// Limits of one sandbox, not reservations (decision 19).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Virtual processors: CPU time is throttled beyond this many seconds a second.
    pub vcpus: u32,
    /// Memory; beyond it the kernel ends a process of the sandbox.
    pub memory_mib: u32,
    /// Bytes that the sandbox may write to its root file system; beyond it writes get `ENOSPC`
    /// where the pool enforces it (`capabilities.disk_limit`).
    pub disk_mib: u32,
    /// Processes and threads; beyond it `fork` gets `EAGAIN`.
    pub processes_max: u32,
}

impl Resources {
    /// What a sandbox of the base template gets (decision 23).
    pub const BASE: Self = Self {
        vcpus: 2,
        memory_mib: 512,
        disk_mib: 10 * 1024,
        processes_max: 2048,
    };
}
