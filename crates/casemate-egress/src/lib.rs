//! What parses sandboxes' network bytes on the host: the resolver of one instance, and the proxy for
//! rules about names.
//!
//! Runs as a process of its own without privileges (decision 2): the node hands it bound sockets and
//! tells it, address by address, what each slot may ask. It ends when the node does, and a new node
//! starts a new one. Must not know sandboxes, teams or SQL: a slot is an address.
//!
//! A slot that the node has not named gets `REFUSED`, and its connections are closed. The node names
//! a slot before it is used, and every question and every proxied name is judged after all that the
//! node has said by then, so a first one is never refused by a race. A changed policy ends the
//! proxied connections that it no longer opens.

mod config;
mod control;
mod error;
mod gate;
mod lookups;
mod message;
mod proxy;
mod resolver;
mod run;
mod servers;
mod upstream;

pub use config::{EgressConfig, Upstreams};
pub use control::{Dns, EgressUpdate, SlotPolicy, send};
pub use error::EgressError;
pub use run::{Sockets, run};
