//! The wire between roles: what control may ask of a node, and how it travels.
//!
//! Owns [`NodePort`] (the calls, as domain types), their serialized form, and both ends of what
//! carries them: a socket pair on one machine, a stream of bytes between two ([`far`], [`gate`]),
//! which somebody else has made sure of. It must not decide anything. Between the processes of
//! `casemate up` a connection of a sandbox is handed over as a descriptor, so its bytes never pass
//! the node (decision 2); between machines the same call answers with a stream.

mod caller;
pub mod carrier;
pub mod client;
pub mod control;
mod dial;
pub mod far;
mod frame;
pub mod gate;
mod policy;
pub mod port;
pub mod protocol;
pub mod server;
pub mod wire;

pub use client::NodeClient;
pub use policy::PolicyDigest;
pub use port::{NodeError, NodePort, SNAPSHOTS_PAGE};
pub use protocol::{
    ClaimRequest, CreateReply, CreateRequest, KeptSnapshot, Located, NodeCache, NodeDisk,
    NodeEvent, NodeInfo, NodeProcessor, NodeTemplate, PauseReply, PausedSandbox, Peer, ResumeReply,
    ResumeRequest, RunningSandbox, SealReply, SnapshotReply,
};
pub use wire::{Dialled, SandboxStream, Wire};
