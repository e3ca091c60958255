//! Network slots of one instance: namespaces with their links, the host's rules about them, policies.
//!
//! Owns everything that the instance has in the host's network: links, the gateway's address, routes,
//! one table of the packet filter, the forwarding switch. Each name carries the instance, and nothing
//! without that name is touched. Must not know sandboxes: a slot is an index, whoever uses it.
//!
//! ```text
//!   slot (namespace of its own)            host
//!   eth0 100.64.0.2/32 ── veth ── cm<instance>-<index>      route 100.64.0.2/32
//!   default via gateway                    lo: gateway 100.64.0.1/32, resolver on port 53,
//!                                              proxy on ports of ours
//! ```
//!
//! A slot's link, address and name follow from its index, and the namespace belongs to the initial
//! user namespace, so that nothing in it can be changed from inside. Slots are made ahead; giving one
//! to a sandbox with the default policy changes nothing here. All functions block for at most some
//! milliseconds, and work in the network namespace of the thread that calls them: the host's.

mod conntrack;
mod elements;
mod error;
mod forwarding;
mod links;
mod names;
mod neighbours;
mod netlink;
mod pool;
mod rules;
mod slot;
mod subnet;
mod survey;
mod sysctl;
mod tool;

pub use error::NetError;
pub use links::SlotLink;
pub use neighbours::{Neighbour, neighbours};
pub use pool::{CONNECTIONS_PER_SLOT_DEFAULT, NetConfig, NetPool, table_forget};
pub use rules::{PROXY_HTTP_PORT, PROXY_TLS_PORT};
pub use slot::NetSlot;
pub use subnet::Subnet;
