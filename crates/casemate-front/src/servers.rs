//! What an edge asks of API servers.

use async_trait::async_trait;
use casemate_cluster::ControlServers;
use casemate_rpc::control::{ControlError, Knock, NodeAddress};
use casemate_types::SandboxId;
use tracing::debug;

/// The cluster's API servers, whichever answers.
#[async_trait]
pub trait Servers: Send + Sync + 'static {
    /// Nodes that may have sandboxes.
    async fn nodes(&self) -> Result<Vec<NodeAddress>, ControlError>;

    /// The sandbox runs on return.
    async fn wake(&self, sandbox: &SandboxId, knock: Knock) -> Result<(), ControlError>;

    /// The node that its row names; `None`: it has none, or has ended.
    async fn home(&self, sandbox: &SandboxId) -> Result<Option<String>, ControlError>;
}

/// All calls may be made twice: whoever answers first may be gone before its answer comes.
#[async_trait]
impl Servers for ControlServers {
    async fn nodes(&self) -> Result<Vec<NodeAddress>, ControlError> {
        match client(self).await?.nodes().await {
            Err(ControlError::Unreachable) => client(self).await?.nodes().await,
            answer => answer,
        }
    }

    async fn wake(&self, sandbox: &SandboxId, knock: Knock) -> Result<(), ControlError> {
        match client(self).await?.wake(sandbox, knock.clone()).await {
            Err(ControlError::Unreachable) => client(self).await?.wake(sandbox, knock).await,
            answer => answer,
        }
    }

    async fn home(&self, sandbox: &SandboxId) -> Result<Option<String>, ControlError> {
        match client(self).await?.home(sandbox).await {
            Err(ControlError::Unreachable) => client(self).await?.home(sandbox).await,
            answer => answer,
        }
    }
}

async fn client(
    servers: &ControlServers,
) -> Result<std::sync::Arc<casemate_rpc::control::ControlClient>, ControlError> {
    servers.client().await.map_err(|error| {
        debug!(%error, "no API server is reached");
        ControlError::Unreachable
    })
}
