//! Who runs where.
//!
//! Owns the [`Catalog`] port and its adapters. The catalog is a cache: it can be rebuilt from the
//! nodes at any time (decision 4), so nothing that is only here may matter. It must not know SQL,
//! HTTP, or how a node is reached.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod memory;

use async_trait::async_trait;
use casemate_types::{Ingress, SandboxId};

pub use memory::MemoryCatalog;

/// Where a sandbox's traffic goes, and how. One without a route is not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub node: String,
    /// It is paused: traffic may wake it, and reaches it only then.
    pub asleep: bool,
    pub ingress: Ingress,
}

/// Routes of running and paused sandboxes. Each call is atomic; the last one wins.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Sets or replaces.
    async fn route_put(&self, sandbox: &SandboxId, route: Route) -> Result<(), CatalogError>;

    async fn route_by_id(&self, sandbox: &SandboxId) -> Result<Option<Route>, CatalogError>;

    /// Removes the route if it leads to `node`; whether it did. A late word from a node that the
    /// sandbox has left thus changes nothing.
    async fn route_remove(&self, sandbox: &SandboxId, node: &str) -> Result<bool, CatalogError>;

    /// Makes `routes`, which all name `node`, those that lead to it: every other one goes, except
    /// those of `unsure`, which stay as they are. Routes to other nodes stay, except those of the
    /// same sandboxes.
    async fn routes_replace(
        &self,
        node: &str,
        routes: &[(SandboxId, Route)],
        unsure: &[SandboxId],
    ) -> Result<(), CatalogError>;
}

/// Why the catalog did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("the catalog cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl CatalogError {
    /// Whether the same call may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
        }
    }
}
