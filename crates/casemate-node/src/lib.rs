//! One machine's sandboxes: admission, the journal, one task for each sandbox, adoption.
//!
//! Owns what *runs* (decision 4): a sandbox is journalled before it is acknowledged, found again
//! after our death, and ended at its deadline by nobody else. It must not know any isolation kind
//! by name, nor teams' limits, stores or the public API.
//!
//! ```text
//! create ──▶ admission ──▶ runtime: born ──▶ journal (noted) ─┐
//!                                └──────▶ serves ──────────────┴─▶ journal (kept) ──▶ task
//!                                                                    │ deadline, kill, exit
//!                                                                    ▼
//!                                               runtime.stop ──▶ journal removed ──▶ Ended event
//! ```

mod admission;
mod cache;
mod create;
mod events;
mod evict;
mod hardware;
pub mod journal;
mod layers;
mod look;
mod node;
mod offer;
mod pause;
mod port;
mod rest;
mod resume;
mod sandbox;
mod start;
mod table;

pub use admission::{AdmissionLimits, memory_total_bytes};
pub use node::{Node, NodeConfig};
pub use offer::{Offer, Site};
pub use rest::{RestError, forget_others, keep_paused};
pub use start::StartError;
