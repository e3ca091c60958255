//! The nouns of Casemate: ids, names, limits, sandbox states and network policy.
//!
//! Pure values. It must not know async, SQL, HTTP or any isolation kind; everything here is
//! parsed once at the rim and trusted inside.

pub mod build;
mod chain;
pub mod id;
pub mod ingress;
pub mod limits;
pub mod network;
pub mod pauses;
pub mod peer;
pub mod places;
pub mod portable;
pub mod resources;
pub mod sandbox;
pub mod steady;
pub mod template;
pub mod usage;

pub use build::{BuildContext, BuildFailure, BuildStatus, Distribution, Startup};
pub use chain::chain;
pub use id::{InstanceId, LayerId, SandboxId, SnapshotId, TeamId, TemplateId, UserId};
pub use ingress::{Entrance, Ingress, TokenHash};
pub use jiff::Timestamp;
pub use network::{CompiledPolicy, NetworkPolicy};
pub use peer::PeerAddr;
pub use portable::Portable;
pub use resources::Resources;
pub use sandbox::{EndReason, Kept, OnTimeout, PauseReason, SandboxState};
pub use usage::{Sample, Usage};
