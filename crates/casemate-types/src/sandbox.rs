//! The life of a sandbox.
//!
//! ```text
//! Running ──kill, deadline, death──▶ Dead
//! ```
//!
//! Pausing, snapshots and resuming add their states with the issue that builds them; E2B's two
//! public words come from the one exhaustive match of [`SandboxState::public`].

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a sandbox stands. Each variant holds exactly what is true in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum SandboxState {
    /// Its processes run; the node ends it at `ends_at`.
    Running { ends_at: Timestamp },
    /// It ended and never comes back.
    Dead {
        ended_at: Timestamp,
        reason: EndReason,
    },
}

/// Why a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Somebody asked for it.
    Killed,
    /// Its deadline passed.
    Expired,
    /// Its first process ended by itself or was killed from inside.
    Exited,
    /// The node does not know it any more (a reboot, a crash during creation).
    Lost,
    /// The store never heard of it (decision 4).
    Orphaned,
}

/// The state's word in E2B's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicState {
    Running,
}

impl SandboxState {
    /// What clients see; `None` is 404 to them.
    pub fn public(&self) -> Option<PublicState> {
        match self {
            Self::Running { .. } => Some(PublicState::Running),
            Self::Dead { .. } => None,
        }
    }
}
