//! What a node does for control and for the edge.

use std::os::unix::net::UnixStream;

use async_trait::async_trait;
use casemate_types::{
    CompiledPolicy, EndReason, Kept, LayerId, Portable, SandboxId, SnapshotId, Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::protocol::{
    ClaimRequest, CreateReply, CreateRequest, KeptSnapshot, Located, NodeEvent, NodeInfo,
    PauseReply, ResumeReply, ResumeRequest, SealReply, SnapshotReply,
};
use crate::wire::Dialled;

/// Snapshots that one answer names at most, so that it fits a frame.
pub const SNAPSHOTS_PAGE: usize = 4096;

/// A node, near or far. Calls may come concurrently; those for one sandbox take effect in the
/// order in which they arrive.
#[async_trait]
pub trait NodePort: Send + Sync {
    /// Makes a sandbox; journalled and serving when it returns. Once the call was sent the node
    /// carries it out whether or not the caller waits.
    async fn create(&self, request: CreateRequest) -> Result<CreateReply, NodeError>;

    /// Gives a warm sandbox away: its life begins anew, and it gives way to nobody any more.
    /// [`NodeError::NotFound`] when it is gone, [`NodeError::Exists`] when it was given away before.
    async fn claim(
        &self,
        sandbox: &SandboxId,
        claim: ClaimRequest,
    ) -> Result<CreateReply, NodeError>;

    /// Says that sandboxes have rows; those that the node does not have are no error.
    async fn recorded(&self, sandboxes: &[SandboxId]) -> Result<(), NodeError>;

    /// Ends a sandbox; returns when its processes are gone. [`NodeError::NotFound`] when none
    /// runs here, which a caller that only wants it gone takes as success;
    /// [`NodeError::StillEnding`] when that takes long, and goes on.
    async fn kill(&self, sandbox: &SandboxId, reason: EndReason) -> Result<(), NodeError>;

    /// Pauses a sandbox: none of its processes runs on return, and what is kept is journalled for
    /// good. One that is paused already answers as it is; if files alone are asked for and its
    /// memory is kept, that is given up. On an error it runs on as before, or is paused with more
    /// than was asked for.
    async fn pause(&self, sandbox: &SandboxId, kept: Kept) -> Result<PauseReply, NodeError>;

    /// Lets a paused sandbox go on: with its processes where they are kept and wanted, otherwise
    /// started anew with its files, unless that is not wanted ([`NodeError::FilesOnly`]). Once the call was sent the node carries it out. On an error it
    /// is paused as before. [`NodeError::Exists`] when it runs.
    async fn resume(&self, request: ResumeRequest) -> Result<ResumeReply, NodeError>;

    /// Keeps the files of a running sandbox as they are at one moment; for good on return.
    async fn snapshot(
        &self,
        sandbox: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<SnapshotReply, NodeError>;

    /// The name under which the files of a paused sandbox are kept here, as they are since the pause,
    /// for [`NodePort::pack`]: its pause's own, which goes when it goes on, or where its memory is kept
    /// this one, made for it and to be removed by the caller. It stays as it is.
    /// [`NodeError::Exists`] when it runs; [`NodeError::Paused`] when that is not possible (now).
    async fn keep_paused(
        &self,
        sandbox: &SandboxId,
        _files: &SnapshotId,
    ) -> Result<SnapshotId, NodeError> {
        Err(NodeError::Paused(sandbox.clone()))
    }

    /// Removes a snapshot; one that is not there is `Ok`.
    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<(), NodeError>;

    /// What [`NodePort::snapshot`] made and nobody removed, in order of their ids and after this one:
    /// [`SNAPSHOTS_PAGE`] at most.
    async fn snapshots(&self, after: Option<&SnapshotId>) -> Result<Vec<KeptSnapshot>, NodeError>;

    /// Makes of a snapshot a read-only layer that sandboxes can have below them; for good on return.
    /// The snapshot stays. Takes time with what is in it, minutes for gigabytes. A layer that is there
    /// already is left as it is, and needs no snapshot any more.
    /// [`NodeError::NoSnapshot`]; [`NodeError::DiskFull`]: nothing of it is left.
    async fn seal(&self, snapshot: &SnapshotId, layer: &LayerId) -> Result<SealReply, NodeError>;

    /// Removes a layer that [`NodePort::seal`] made; one that is not there is `Ok`.
    /// [`NodeError::InUse`] when a sandbox of the node, running, paused or being made, has it below it.
    async fn remove_layer(&self, layer: &LayerId) -> Result<(), NodeError>;

    /// What [`NodePort::seal`] made and nobody removed, in order of their ids and after this one:
    /// [`SNAPSHOTS_PAGE`] at most.
    async fn layers(&self, after: Option<&LayerId>) -> Result<Vec<LayerId>, NodeError>;

    /// Which of what a sandbox would begin with is not here, or is being removed: names of layers and
    /// of kept files. Empty where a create would find everything. With `hold` none of it is evicted
    /// ([`NodePort::stored`]), what comes meanwhile neither, until a sandbox of that name is made, or
    /// for three minutes from the last such call of that name. Without, what is here may go before the
    /// create; removals are held up by neither.
    async fn missing(
        &self,
        layers: &[String],
        files: Option<&SnapshotId>,
        hold: Option<&str>,
    ) -> Result<Vec<String>, NodeError>;

    /// Says that these lie in the bucket too, so that the node may evict them where it needs the room,
    /// the least recently used first: for five minutes, then it must be said again. Never what a
    /// sandbox needs, or what is held. Those that are not here are no error.
    async fn stored(&self, _whats: &[Portable]) -> Result<(), NodeError> {
        Ok(())
    }

    /// Writes what the node keeps to a socket, in a form of which [`NodePort::unpack`] makes the same at
    /// any node: all of it once this has returned. Only from the node's own machine.
    /// [`NodeError::NotHere`]; [`NodeError::CarryFailed`] when the other end leaves, or takes nothing
    /// for a minute. The node goes on with it until then, whether or not the caller waits.
    async fn pack(&self, what: &Portable, _to: UnixStream) -> Result<(), NodeError> {
        Err(cannot_carry(what))
    }

    /// Keeps what another node packed, about so many bytes, for which room is made before; for good on
    /// return: the bytes that it takes. What is here already stays, and nothing is read. It comes from
    /// the bucket, as if [`NodePort::stored`] had said so. [`NodeError::CarryFailed`], also for what is no
    /// packed tree, and [`NodeError::DiskFull`] leave nothing. Otherwise as [`NodePort::pack`].
    async fn unpack(
        &self,
        what: &Portable,
        _bytes: u64,
        _from: UnixStream,
    ) -> Result<u64, NodeError> {
        Err(cannot_carry(what))
    }

    /// How many processes of a running sandbox the kernel ended because its memory was full.
    async fn memory_kills(&self, sandbox: &SandboxId) -> Result<u64, NodeError>;

    /// Moves the moment at which the node ends the sandbox, or pauses it, by itself; the past means
    /// at once. [`NodeError::Paused`] when it has none.
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
    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<Dialled, NodeError>;

    /// Whether the sandbox is here, running or paused, and how traffic comes in. `None` also for one
    /// that is being made or ended, or that is nobody's yet.
    async fn locate(&self, sandbox: &SandboxId) -> Result<Option<Located>, NodeError>;

    /// What the node is and holds now.
    async fn info(&self) -> Result<NodeInfo, NodeError>;

    /// What is there now ([`NodeEvent::Running`] or [`NodeEvent::Paused`] each, then one
    /// [`NodeEvent::Synced`]), then what happens. The channel ends when the node is gone. One watcher at a time.
    async fn watch(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError>;

    /// The same without what is told once only (samples, logs, ends that nobody heard of), for any
    /// number at once. One that lags loses its channel. Over one connection either this or
    /// [`NodePort::watch`].
    async fn observe(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError>;

    /// Returns once a node that is not reached now is again. One on this machine, which is reached or
    /// gone for good, never is.
    ///
    /// # Cancel safety
    /// Nothing is lost with it.
    async fn until_back(&self) {
        std::future::pending().await
    }
}

pub(crate) fn cannot_carry(what: &Portable) -> NodeError {
    NodeError::Unsupported {
        why: format!("{what} is carried from and to a node on its own machine only"),
    }
}

/// Why a node did not do as asked. Texts are for operators; what a client sees is decided above.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeError {
    #[error("sandbox {0} does not run on this node")]
    NotFound(SandboxId),
    #[error("sandbox {0} exists already on this node")]
    Exists(SandboxId),
    #[error("sandbox {0} is paused")]
    Paused(SandboxId),
    /// It was to go on with its processes, and they are not kept any more.
    #[error("of sandbox {0} only files are kept")]
    FilesOnly(SandboxId),
    #[error("there is no snapshot {0} on this node")]
    NoSnapshot(SnapshotId),
    /// A sandbox lies over it, or it is being packed.
    #[error("layer {0} is needed on this node")]
    InUse(LayerId),
    #[error("there is no {0} on this node")]
    NotHere(Portable),
    /// Nothing of what was to come is left.
    #[error("could not carry {what}: {why}")]
    CarryFailed { what: Portable, why: String },
    /// It could not be held still, or its files not kept; it runs on.
    #[error("could not pause: {why}")]
    PauseFailed { why: String },
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
    /// Whoever asked may not ask for this.
    #[error("the node does not do that for this caller")]
    Denied,
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
            | Self::CarryFailed { .. }
            | Self::Unreachable => true,
            Self::NotFound(_)
            | Self::Exists(_)
            | Self::Paused(_)
            | Self::FilesOnly(_)
            | Self::NoSnapshot(_)
            | Self::InUse(_)
            | Self::NotHere(_)
            | Self::PauseFailed { .. }
            | Self::Unsupported { .. }
            | Self::CreateFailed { .. }
            | Self::PortClosed { .. }
            | Self::Denied
            | Self::Internal { .. } => false,
        }
    }
}
