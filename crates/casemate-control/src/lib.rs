//! The use cases of the control plane, and the reconcilers that keep its promises.
//!
//! Owns who may do what, quotas, the life of a sandbox as its owner sees it, derived keys, and
//! the comparison of what runs with what should run. It speaks to ports only (store, catalog,
//! node) and must not know axum, SQL or how a node is reached.

pub mod admin;
mod again;
mod agent_log;
mod artifacts;
pub mod auth;
pub mod bootstrap;
pub mod config;
mod control;
pub mod credential;
pub mod cursor;
pub mod events;
mod janitor;
pub mod keys;
mod locks;
pub mod logs;
pub mod members;
pub mod metadata_filter;
pub mod metrics;
pub mod nodes;
mod quota;
mod recall;
mod recent;
mod reconcile;
mod recorder;
pub mod sandboxes;
pub mod servers;
pub mod tasks;
pub mod teams;
pub mod templates;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transitions;
mod warm;

pub use bootstrap::{Bootstrap, BootstrapError, Bootstrapped};
pub use config::{
    AdminToken, BuildsConfig, ControlConfig, Limits, ServerTimes, Shared, Sharing, WarmPoolConfig,
};
pub use control::{Control, StartError};
pub use keys::RootSecret;
pub use quota::QuotaReached;
