//! What parses sandboxes' network bytes on the host: for now the resolver of one instance.
//!
//! Runs as a process of its own without privileges (decision 2): the node hands it bound sockets and
//! tells it, address by address, what each slot may ask. It ends when the node does, and a new node
//! starts a new one. Must not know sandboxes, teams or SQL: a slot is an address. The proxy for rules
//! about names will stand beside the resolver, over the same table and the same control socket.
//!
//! A slot that the node has not named gets `REFUSED`. The node names a slot before it is used, and
//! every question is judged after all that the node has said by then, so a first question is never
//! refused by a race.

mod config;
mod control;
mod error;
mod gate;
mod message;
mod resolver;
mod run;
mod servers;
mod upstream;

pub use config::{EgressConfig, Upstreams};
pub use control::{Dns, EgressUpdate, SlotPolicy, send};
pub use error::EgressError;
pub use run::{Sockets, run};
