//! What a team does with its sandboxes; one file for each verb.
//!
//! Changes of one sandbox are in a row (see [`crate::locks`]): what was promised in the store and
//! what the node was told last agree. A client that must not interrupt a change runs it on
//! [`crate::tasks::Tasks::detached`].

pub mod connect;
pub mod create;
mod elsewhere;
pub mod fork;
pub mod get;
pub mod ingress;
mod kept_files;
pub mod kill;
pub mod list;
pub mod network;
pub mod pause;
pub mod place;
pub mod resume;
pub mod snapshot;
pub mod startup;
pub mod timeout;
pub mod wake;

use casemate_rpc::NodeError;
use casemate_store::{Sandbox, StoreError};
use casemate_types::{Kept, OnTimeout, SandboxId, SandboxState, Timestamp};

use crate::quota::QuotaReached;
use crate::transitions::Doing;
use place::PlacementError;

/// A sandbox in answers to its owner, with what is derived and never kept.
#[derive(Clone)]
pub struct SandboxView {
    /// Its own times are steady time, which is nobody's business outside.
    pub sandbox: Sandbox,
    pub shown: Shown,
    /// By the wall clock, as the next one.
    pub started_at: Timestamp,
    /// Of a paused one, when it was paused.
    pub ends_at: Timestamp,
    pub access_token: Option<String>,
    /// Of one whose ports are not public.
    pub traffic_token: Option<String>,
    pub domain: String,
}

/// How a sandbox stands for its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Running,
    /// With what is kept of it; `None` while the pause goes on.
    Paused(Option<Kept>),
}

/// Why a change of a sandbox was not made. The texts of those that name a cause are E2B's.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is none, it is dead, or it is another team's.
    #[error("Sandbox \"{0}\" doesn't exist or you don't have access to it")]
    NotFound(SandboxId),
    /// It ran, and nobody knows whether it does.
    #[error("Sandbox \"{sandbox}\" was lost with its node {node}; it comes back if the node does")]
    Lost { sandbox: SandboxId, node: String },
    /// It is paused, and what is kept of it is nowhere else.
    #[error(
        "Sandbox \"{sandbox}\" cannot go on now: its files are on node {node}, which is lost; it can \
         be resumed when the node is back"
    )]
    FilesLost { sandbox: SandboxId, node: String },
    #[error("Timeout cannot be greater than {hours} hours")]
    TimeoutTooLong { hours: u32 },
    #[error("Max instance length exceeded")]
    LifeExceeded,
    #[error(transparent)]
    Network(#[from] network::NetworkError),
    #[error("the node refused a change of sandbox {sandbox}")]
    Node {
        sandbox: SandboxId,
        #[source]
        source: NodeError,
    },
    /// Another change of it goes on.
    #[error("Sandbox \"{sandbox}\" is being {}", .doing.participle())]
    Busy { sandbox: SandboxId, doing: Doing },
    #[error("Error pausing sandbox - sandbox '{0}' is already paused")]
    AlreadyPaused(SandboxId),
    #[error("Sandbox {0} is already running")]
    AlreadyRunning(SandboxId),
    /// Its processes were to be given up, and another start of it goes on.
    #[error("Sandbox \"{0}\" is already being started")]
    StartInFlight(SandboxId),
    #[error("Timeout must be greater than 0")]
    TimeoutZero,
    /// It runs on as before.
    #[error("the agent in sandbox '{0}' does not answer; it keeps running")]
    Unhealthy(SandboxId),
    #[error(transparent)]
    Quota(#[from] QuotaReached),
    #[error("place a sandbox")]
    Placement(#[source] PlacementError),
    #[error("the store failed in a change")]
    Store(#[source] StoreError),
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TeamFull { max } => QuotaReached { max }.into(),
            error => Self::Store(error),
        }
    }
}

/// How a sandbox stands at `now`, if it is there at all: one past its deadline is as good as dead,
/// or as good as paused, even while its node is still at it.
pub(crate) fn stands(sandbox: &Sandbox, now: Timestamp) -> Option<SandboxState> {
    match (&sandbox.state, sandbox.on_timeout) {
        (SandboxState::Running { ends_at }, _) if *ends_at > now => Some(sandbox.state.clone()),
        (SandboxState::Running { .. }, OnTimeout::Kill) => None,
        (SandboxState::Running { ends_at }, OnTimeout::Pause(kept)) => {
            Some(SandboxState::Paused { at: *ends_at, kept })
        }
        (SandboxState::Paused { .. }, _) => Some(sandbox.state.clone()),
        (SandboxState::Dead { .. }, _) => None,
    }
}
