//! The life of a sandbox.
//!
//! ```text
//!            pause, deadline
//! Running ────────────────────▶ Paused
//!    │    ◀────────────────────    │
//!    │      connect, traffic       │
//!    └── kill, deadline, death ──▶ Dead ◀── kill, loss
//! ```
//!
//! E2B's two public words come from the one exhaustive match of [`SandboxState::public`].

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a sandbox stands. Each variant holds exactly what is true in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum SandboxState {
    /// Its processes run; the node ends or pauses it at `ends_at`.
    Running { ends_at: Timestamp },
    /// None of its processes runs; it has no deadline.
    Paused { at: Timestamp, kept: Kept },
    /// It ended and never comes back.
    Dead {
        ended_at: Timestamp,
        reason: EndReason,
    },
}

/// What is kept of a sandbox that is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// Its processes with their memory, and its files.
    Memory,
    /// Its files. It starts anew.
    Files,
}

/// What happens at the deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    #[default]
    Kill,
    Pause(Kept),
}

/// Why a sandbox is paused, or has only its files left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// Somebody asked for it.
    Asked,
    /// Its deadline passed.
    Expired,
    /// Paused ones held more memory than the node lets them: the one that rested for longest lost
    /// its processes.
    MemoryBound,
    /// Its processes ended while it was paused, as with a restart of the machine.
    ProcessesLost,
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
    /// It was paused for longer than its team keeps such.
    Retention,
}

/// The state's word in E2B's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicState {
    Running,
    Paused,
}

impl SandboxState {
    /// What clients see; `None` is 404 to them.
    pub fn public(&self) -> Option<PublicState> {
        match self {
            Self::Running { .. } => Some(PublicState::Running),
            Self::Paused { .. } => Some(PublicState::Paused),
            Self::Dead { .. } => None,
        }
    }
}
