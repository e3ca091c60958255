//! The port of routes, and the order in which words about one sandbox count.
//!
//! Several servers speak of one sandbox, and their words may arrive in any order. Each carries the
//! generation of the store's row that it was said of:
//!
//! | there is | word of an older generation | of the same | of a newer one |
//! |---|---|---|---|
//! | a route | changes nothing | put: replaces; removal: if it leads to the named node | counts |
//! | a removal, remembered for [`REMOVAL_REMEMBERED`] | changes nothing | counts | counts |
//! | nothing | counts | counts | counts |

use std::time::Duration;

use async_trait::async_trait;
pub use casemate_types::TokenHash;
use casemate_types::{Ingress, SandboxId};

use crate::CatalogError;

/// How long a removal keeps older words from bringing a route back. Longer than any request lasts.
pub const REMOVAL_REMEMBERED: Duration = Duration::from_secs(600);

/// Where a sandbox's traffic goes, and how. One without a route is not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub node: String,
    /// It is paused: traffic may wake it, and reaches it only then.
    pub asleep: bool,
    pub ingress: Ingress,
    /// Of the store's row that this was read from.
    pub generation: u64,
    /// What traffic must carry, where `ingress` says that it is private. `None` in routes of control
    /// processes that did not say it.
    pub traffic_token: Option<TokenHash>,
}

/// Routes of running and paused sandboxes. Each call is atomic; of words about one sandbox the
/// newest counts, as the table of this module says.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Sets or replaces; whether it did, and not something newer stands.
    async fn route_put(&self, sandbox: &SandboxId, route: Route) -> Result<bool, CatalogError>;

    async fn route_by_id(&self, sandbox: &SandboxId) -> Result<Option<Route>, CatalogError>;

    /// Removes the route, if `generation` is newer than it, or as new and it leads to `node`;
    /// whether there was one that went. A late word from a node that the sandbox has left thus
    /// changes nothing. Without a route it is remembered all the same.
    async fn route_remove(
        &self,
        sandbox: &SandboxId,
        node: &str,
        generation: u64,
    ) -> Result<bool, CatalogError>;

    /// Makes `routes`, which all name `node`, those that lead to it: every other one goes, except
    /// those of `unsure`, which stay as they are. Routes to other nodes stay, except older ones of
    /// the same sandboxes. Of what goes, its own generation is remembered: the same word brings it
    /// back, an older one does not.
    async fn routes_replace(
        &self,
        node: &str,
        routes: &[(SandboxId, Route)],
        unsure: &[SandboxId],
    ) -> Result<(), CatalogError>;
}

/// Whether a catalog is there, and whether it still has what it was told.
#[async_trait]
pub trait Health: Send + Sync {
    /// Answers as any other call does: at once where it is known to be away.
    async fn ping(&self) -> Result<(), CatalogError>;

    /// Changes when the catalog has lost its data, or missed some of it: whoever fills it does so
    /// again.
    async fn epoch(&self) -> Result<String, CatalogError>;
}
