//! The wire between roles: what control may ask of a node, and how it travels.
//!
//! Owns [`NodePort`] (the calls, as domain types), their serialized form, and the two ends of a
//! socket pair. It must not decide anything. Between the processes of `casemate up` a connection
//! of a sandbox is handed over as a descriptor, so its bytes never pass the node (decision 2);
//! between machines the same call will answer with a byte stream over mutual TLS.

pub mod client;
mod frame;
pub mod port;
pub mod protocol;
pub mod server;

pub use client::NodeClient;
pub use port::{NodeError, NodePort, SNAPSHOTS_PAGE};
pub use protocol::{
    ClaimRequest, CreateReply, CreateRequest, KeptSnapshot, NodeDisk, NodeEvent, NodeInfo,
    NodeProcessor, NodeTemplate, PauseReply, PausedSandbox, ResumeReply, ResumeRequest,
    RunningSandbox, SealReply, SnapshotReply,
};
