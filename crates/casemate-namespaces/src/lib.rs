//! Sandboxes of Linux namespaces: the runtime that needs neither a virtual machine nor a helper
//! program on its way.
//!
//! Owns the id ranges of slots, writable layers, control groups and launchers, and makes sandboxes
//! of them behind the port of `casemate-runtime`. Networks come from `casemate-net`. It must not
//! know teams, deadlines, placement, stores or HTTP.

pub mod cgroup;
pub mod launcher;
mod step;

pub use step::StepError;

/// Where the agent of every sandbox listens.
pub const AGENT_PORT: u16 = 49983;

/// Ids of one sandbox.
pub const IDS_PER_SLOT: u32 = 65_536;
