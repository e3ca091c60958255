//! The catalog of one machine: a map in memory, rebuilt from the node after a start.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use casemate_types::SandboxId;

use crate::{Catalog, CatalogError, Route};

/// One lock for all: a lookup holds it for a hash and a clone, and writes are as rare as creates
/// and kills.
#[derive(Default)]
pub struct MemoryCatalog {
    routes: RwLock<HashMap<SandboxId, Route>>,
}

impl MemoryCatalog {
    pub fn new() -> Self {
        Self::default()
    }

    // No holder panics half-way: each change of the map is one call that leaves it whole. So a
    // poisoned lock guards nothing that is broken.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<SandboxId, Route>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<SandboxId, Route>> {
        self.routes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn route_put(&self, sandbox: &SandboxId, route: Route) -> Result<(), CatalogError> {
        self.write().insert(sandbox.clone(), route);
        Ok(())
    }

    async fn route_by_id(&self, sandbox: &SandboxId) -> Result<Option<Route>, CatalogError> {
        Ok(self.read().get(sandbox).cloned())
    }

    async fn route_remove(&self, sandbox: &SandboxId, node: &str) -> Result<bool, CatalogError> {
        let mut routes = self.write();
        let leads_there = routes.get(sandbox).is_some_and(|route| route.node == node);
        if leads_there {
            routes.remove(sandbox);
        }
        Ok(leads_there)
    }

    async fn routes_replace(
        &self,
        node: &str,
        new: &[(SandboxId, Route)],
        unsure: &[SandboxId],
    ) -> Result<(), CatalogError> {
        let unsure: HashSet<&SandboxId> = unsure.iter().collect();
        let mut routes = self.write();
        routes.retain(|sandbox, route| route.node != node || unsure.contains(sandbox));
        routes.extend(new.iter().cloned());
        Ok(())
    }
}
