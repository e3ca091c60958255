//! The public control-plane API over HTTP.
//!
//! Owns routes, extractors, the mapping between wire bodies and use cases, the OpenAPI document,
//! and [`error::ApiError`], the only type that knows status codes. Handlers decide nothing. It
//! must not know SQL, nodes, or how connections arrive: the edge (or a test) calls the router and
//! puts the peer's address into each request's extensions ([`casemate_types::peer::PeerAddr`]).

mod admin;
mod api_keys;
mod auth;
mod error;
mod events;
mod extract;
mod health;
mod layers;
mod metrics;
mod nodes;
mod not_yet;
mod openapi;
mod operation;
mod rate_limits;
mod router;
mod sandboxes;
mod snapshots;
mod teams;
mod templates;

pub use error::quota_text;
pub use metrics::{MetricsAccess, ScrapeToken};
pub use rate_limits::RateLimits;
pub use router::{ApiState, router};
