//! What a node does for control and for the edge.

use async_trait::async_trait;
use casemate_types::{CompiledPolicy, EndReason, SandboxId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::protocol::{CreateReply, CreateRequest, NodeEvent, NodeInfo};

/// A node, near or far. Calls may come concurrently; those for one sandbox take effect in the
/// order in which they arrive.
#[async_trait]
pub trait NodePort: Send + Sync {
    /// Makes a sandbox; journalled and serving when it returns. Once the call was sent the node
    /// carries it out whether or not the caller waits.
    async fn create(&self, request: CreateRequest) -> Result<CreateReply, NodeError>;

    /// Says that sandboxes have rows; those that the node does not have are no error.
    async fn recorded(&self, sandboxes: &[SandboxId]) -> Result<(), NodeError>;

    /// Ends a sandbox; returns when its processes are gone. [`NodeError::NotFound`] when none
    /// runs here, which a caller that only wants it gone takes as success;
    /// [`NodeError::StillEnding`] when that takes long, and goes on.
    async fn kill(&self, sandbox: &SandboxId, reason: EndReason) -> Result<(), NodeError>;

    /// Moves the moment at which the node ends the sandbox by itself; the past means at once.
    async fn set_deadline(&self, sandbox: &SandboxId, ends_at: Timestamp) -> Result<(), NodeError>;

    /// Replaces the egress rules; they hold for new connections on return.
    async fn set_network(
        &self,
        sandbox: &SandboxId,
        policy: CompiledPolicy,
    ) -> Result<(), NodeError>;

    /// Connects to a port inside; see `Runtime::dial`.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<std::net::TcpStream, NodeError>;

    /// What the node is and holds now.
    async fn info(&self) -> Result<NodeInfo, NodeError>;

    /// What runs now ([`NodeEvent::Running`] each, then one [`NodeEvent::Synced`]), then what
    /// happens. The channel ends when the node is gone. One watcher at a time.
    async fn watch(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError>;
}

/// Why a node did not do as asked. Texts are for operators; what a client sees is decided above.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeError {
    #[error("sandbox {0} does not run on this node")]
    NotFound(SandboxId),
    #[error("sandbox {0} exists already on this node")]
    Exists(SandboxId),
    /// Admission said no; nothing was made. Another node may have room.
    #[error("the node has no room: {what}")]
    Full { what: String },
    /// The same because its disk is full, which is the operator's to mend.
    #[error("the node has no room: {what}")]
    DiskFull { what: String },
    /// More creates wait than `queue_max`; nothing was made.
    #[error("more than {max} sandboxes wait for creation on this node")]
    QueueFull { max: usize },
    /// The request cannot be honoured by this node's isolation kind.
    #[error("not possible on this node: {why}")]
    Unsupported { why: String },
    /// It was tried and failed; nothing is left of it.
    #[error("creation failed: {why}")]
    CreateFailed { why: String },
    /// Its processes do not go, as those that the kernel holds; the node goes on ending it.
    #[error("sandbox {0} is being ended and is not gone yet")]
    StillEnding(SandboxId),
    #[error("port {port} is not open in sandbox {sandbox}")]
    PortClosed { sandbox: SandboxId, port: u16 },
    #[error("the node failed: {why}")]
    Internal { why: String },
    /// No answer will come: the connection to the node is gone.
    #[error("the node cannot be reached")]
    Unreachable,
}

impl NodeError {
    /// Whether the same call may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full { .. }
            | Self::DiskFull { .. }
            | Self::QueueFull { .. }
            | Self::StillEnding(_)
            | Self::Unreachable => true,
            Self::NotFound(_)
            | Self::Exists(_)
            | Self::Unsupported { .. }
            | Self::CreateFailed { .. }
            | Self::PortClosed { .. }
            | Self::Internal { .. } => false,
        }
    }
}
