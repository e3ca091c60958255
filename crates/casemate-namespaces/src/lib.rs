//! Sandboxes of Linux namespaces: the runtime that needs neither a virtual machine nor a helper
//! program on its way.
//!
//! Owns the id ranges of slots, writable layers, control groups and launchers, and makes sandboxes
//! of them behind the port of `casemate-runtime`. Networks come from `casemate-net`. It must not
//! know teams, deadlines, placement, stores or HTTP.

pub mod cgroup;
pub mod config;
mod dialer;
pub mod launcher;
pub mod launchers;
pub mod lease;
pub mod pool;
pub mod probe;
mod readiness;
mod record;
pub mod runtime;
mod shelf;
mod slots;
mod step;
mod view;

pub use config::NamespacesConfig;
pub use launchers::LauncherProgram;
pub use runtime::{NamespacesRuntime, OpenError, PoolSpace, SandboxSpace};
pub use step::StepError;

/// Where the agent of every sandbox listens.
pub const AGENT_PORT: u16 = 49983;

/// Ids of one sandbox.
pub const IDS_PER_SLOT: u32 = 65_536;
