//! How an edge finds sandboxes and reaches them, where it stands apart from API servers and nodes.
//!
//! Owns what an edge knows for a moment and forgets ([`Finder`]), the list of nodes that it asks
//! ([`NodeTable`]), and what becomes of a node's answers on any edge ([`answers`]). Nothing of it is
//! truth: what runs is the nodes' to say, and what may be woken is an API server's. It must not know
//! SQL, HTTP, or what makes connections between machines safe.
//!
//! ```text
//!  edge ── Routes, Dialer ── Finder ── memory of seconds
//!                              │ ├──── catalog (Redis), where there is one
//!                              │ └──── all nodes at once ── NodeTable ── API servers, file
//!                              └────── node of the route: connections into the sandbox
//! ```
//!
//! A crate of its own, because the edge's may not know the wire between machines, and because what is
//! here is tried without the program around it.

pub mod answers;
mod finder;
mod memory;
mod nodes;
mod search;
mod servers;

pub use answers::NodeDialer;
pub use finder::{Figures, Finder};
pub use nodes::{ListError, NodeTable, keep_listed};
pub use servers::Servers;
