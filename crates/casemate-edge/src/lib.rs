//! The front door: decides for each request whether it goes to a sandbox or to the API, and
//! carries it there.
//!
//! Owns: host and header routing (decision 11), the answers of the edge itself, who may be
//! connected, connections to services in sandboxes, the pool of connections to envd, upgrades,
//! drain. A connection is any byte stream, so TLS goes in front of [`Edge::serve_accepted`]
//! and changes nothing behind it.
//!
//! It must not know SQL, the catalog's keeper, the node's wire or the API's crate: who runs is
//! asked through [`Routes`], connections are made by a [`Dialer`], the API is a [`tower::Service`].
//!
//! ```text
//!  client ── ClientIo ── hyper server ── Edge::answer ──┬── API service
//!            (limits)                      (target)     └── Link ── hyper client ── Dialer
//! ```

mod accept;
mod api;
mod body;
mod client_io;
mod config;
mod connection;
mod edge;
mod forward;
mod header_rules;
mod link;
mod refusal;
mod reserved;
mod routes;
mod seats;
mod target;
mod tunnel;
mod upstream;

pub use accept::Drained;
pub use api::InvalidHost;
pub use body::{AnswerData, EdgeBody, RequestBody};
pub use config::{EdgeConfig, EdgeLimits};
pub use edge::Edge;
pub use routes::{
    DialFailure, Dialer, Dialled, Knock, LookupFailure, RouteTarget, Routes, TrafficToken,
    WakeFailure, Wire,
};
