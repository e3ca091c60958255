//! What a team does with its sandboxes; one file for each verb.
//!
//! Changes of one sandbox are in a row (see [`crate::locks`]): what was promised in the store and
//! what the node was told last agree. A client that must not interrupt a change runs it on
//! [`crate::tasks::Tasks::detached`].

pub mod connect;
pub mod create;
pub mod get;
pub mod kill;
pub mod list;
pub mod network;
pub mod timeout;

use casemate_rpc::NodeError;
use casemate_store::{Sandbox, StoreError};
use casemate_types::{SandboxId, SandboxState, Timestamp};

/// A sandbox in answers to its owner, with what is derived and never kept.
#[derive(Clone)]
pub struct SandboxView {
    /// Its own times are steady time, which is nobody's business outside.
    pub sandbox: Sandbox,
    /// By the wall clock, as the next one.
    pub started_at: Timestamp,
    pub ends_at: Timestamp,
    pub access_token: Option<String>,
    pub domain: String,
}

/// Why a change of a sandbox was not made. The texts of those that name a cause are E2B's.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is none, it is dead, or it is another team's.
    #[error("Sandbox \"{0}\" doesn't exist or you don't have access to it")]
    NotFound(SandboxId),
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
    #[error("the store failed in a change")]
    Store(#[from] StoreError),
}

/// The deadline of a sandbox that is alive at `now`; one past its deadline is as good as dead,
/// even while its node is still at it.
pub(crate) fn alive_until(sandbox: &Sandbox, now: Timestamp) -> Option<Timestamp> {
    match sandbox.state {
        SandboxState::Running { ends_at } => (ends_at > now).then_some(ends_at),
        SandboxState::Dead { .. } => None,
    }
}
