//! Routes in a map, with what was removed and, where it is bounded, which were told of last.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use casemate_types::SandboxId;
use tokio::time::Instant;

use super::MemoryCatalog;
use crate::routes::REMOVAL_REMEMBERED;
use crate::{Catalog, CatalogError, Route};

/// One lock for all: a lookup holds it for a hash and a clone, and writes are as rare as creates
/// and kills.
pub(crate) struct RouteTable(RwLock<Table>);

/// `by_age` and `gone` together have each entry once, under its `told`.
struct Table {
    max: usize,
    entries: HashMap<SandboxId, Entry>,
    /// Those that lead somewhere, the one that was told of longest ago first.
    by_age: BTreeMap<u64, SandboxId>,
    /// Those that were removed, in the same order.
    gone: BTreeMap<u64, SandboxId>,
    next: u64,
}

struct Entry {
    standing: Standing,
    told: u64,
}

/// What counts of all that was said of a sandbox.
enum Standing {
    Leads(Route),
    Gone { generation: u64, since: Instant },
}

impl Standing {
    fn generation(&self) -> u64 {
        match self {
            Self::Leads(route) => route.generation,
            Self::Gone { generation, .. } => *generation,
        }
    }

    fn route(&self) -> Option<&Route> {
        match self {
            Self::Leads(route) => Some(route),
            Self::Gone { .. } => None,
        }
    }
}

/// What a table knows of a sandbox.
pub(crate) enum Known {
    Leads(Route),
    /// It was removed.
    Gone,
    Nothing,
}

impl RouteTable {
    pub(crate) fn new(max: usize) -> Self {
        Self(RwLock::new(Table {
            max,
            entries: HashMap::new(),
            by_age: BTreeMap::new(),
            gone: BTreeMap::new(),
            next: 0,
        }))
    }

    pub(crate) fn put(&self, sandbox: &SandboxId, route: Route) -> bool {
        self.write().put(sandbox, route)
    }

    pub(crate) fn get(&self, sandbox: &SandboxId) -> Known {
        match self
            .read()
            .entries
            .get(sandbox)
            .map(|entry| &entry.standing)
        {
            Some(Standing::Leads(route)) => Known::Leads(route.clone()),
            Some(Standing::Gone { .. }) => Known::Gone,
            None => Known::Nothing,
        }
    }

    pub(crate) fn remove(&self, sandbox: &SandboxId, node: &str, generation: u64) -> bool {
        self.write().remove(sandbox, node, generation)
    }

    pub(crate) fn all(&self) -> Vec<(SandboxId, Route)> {
        let table = self.read();
        let leads = |(sandbox, entry): (&SandboxId, &Entry)| {
            Some((sandbox.clone(), entry.standing.route()?.clone()))
        };
        table.entries.iter().filter_map(leads).collect()
    }

    /// Those that went, with the generation of each.
    pub(crate) fn replace(
        &self,
        node: &str,
        new: &[(SandboxId, Route)],
        unsure: &[SandboxId],
    ) -> Vec<(SandboxId, u64)> {
        self.write().replace(node, new, unsure)
    }

    /// Takes over what somebody who knows better says, unless something newer stands here.
    pub(crate) fn note(&self, sandbox: &SandboxId, route: Option<&Route>) {
        let same = |table: &Table| {
            let known = table
                .entries
                .get(sandbox)
                .and_then(|entry| entry.standing.route());
            known == route
        };
        // Mostly it is known, and then the lock is shared.
        if same(&self.read()) {
            return;
        }
        let mut table = self.write();
        match route {
            Some(route) => {
                table.put(sandbox, route.clone());
            }
            None => table.forget(sandbox),
        }
    }

    // No holder panics half-way: each change of the map is one call that leaves it whole. So a
    // poisoned lock guards nothing that is broken.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn put(&mut self, sandbox: &SandboxId, route: Route) -> bool {
        let stands = self.entries.get(sandbox);
        if stands.is_some_and(|entry| entry.standing.generation() > route.generation) {
            return false;
        }
        self.set(sandbox, Standing::Leads(route));
        true
    }

    fn remove(&mut self, sandbox: &SandboxId, node: &str, generation: u64) -> bool {
        let stands = self.entries.get(sandbox).map(|entry| &entry.standing);
        let led = match stands {
            Some(standing) if standing.generation() > generation => return false,
            Some(Standing::Leads(route)) => {
                if route.generation == generation && route.node != node {
                    return false;
                }
                true
            }
            Some(Standing::Gone { .. }) | None => false,
        };
        self.set_gone(sandbox, generation);
        led
    }

    fn replace(
        &mut self,
        node: &str,
        new: &[(SandboxId, Route)],
        unsure: &[SandboxId],
    ) -> Vec<(SandboxId, u64)> {
        let stay: HashSet<&SandboxId> = unsure
            .iter()
            .chain(new.iter().map(|(sandbox, _)| sandbox))
            .collect();
        let leads_there = |(sandbox, entry): (&SandboxId, &Entry)| {
            let route = entry.standing.route()?;
            let goes = route.node == node && !stay.contains(sandbox);
            goes.then(|| (sandbox.clone(), route.generation))
        };
        let gone: Vec<_> = self.entries.iter().filter_map(leads_there).collect();
        for (sandbox, generation) in &gone {
            self.set_gone(sandbox, *generation);
        }
        for (sandbox, route) in new {
            self.put(sandbox, route.clone());
        }
        gone
    }

    fn set_gone(&mut self, sandbox: &SandboxId, generation: u64) {
        let since = Instant::now();
        self.set(sandbox, Standing::Gone { generation, since });
    }

    fn set(&mut self, sandbox: &SandboxId, standing: Standing) {
        self.forget(sandbox);
        let told = self.next;
        self.next += 1;
        let queue = match standing {
            Standing::Leads(_) => &mut self.by_age,
            Standing::Gone { .. } => &mut self.gone,
        };
        queue.insert(told, sandbox.clone());
        self.entries
            .insert(sandbox.clone(), Entry { standing, told });
        self.sweep();
    }

    fn forget(&mut self, sandbox: &SandboxId) {
        if let Some(entry) = self.entries.remove(sandbox) {
            self.by_age.remove(&entry.told);
            self.gone.remove(&entry.told);
        }
    }

    /// Forgets removals that nobody contradicts any more, and makes room: removals go first.
    fn sweep(&mut self) {
        while let Some((_, sandbox)) = self.gone.first_key_value() {
            let is_over = self.entries.get(sandbox).is_none_or(Entry::is_over);
            if !is_over && self.entries.len() <= self.max {
                break;
            }
            let sandbox = sandbox.clone();
            self.forget(&sandbox);
        }
        while self.entries.len() > self.max {
            let Some((_, sandbox)) = self.by_age.first_key_value() else {
                return;
            };
            let sandbox = sandbox.clone();
            self.forget(&sandbox);
        }
    }
}

impl Entry {
    /// Of a removal: it need not be remembered any longer.
    fn is_over(&self) -> bool {
        match &self.standing {
            Standing::Leads(_) => false,
            Standing::Gone { since, .. } => since.elapsed() >= REMOVAL_REMEMBERED,
        }
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn route_put(&self, sandbox: &SandboxId, route: Route) -> Result<bool, CatalogError> {
        Ok(self.routes.put(sandbox, route))
    }

    async fn route_by_id(&self, sandbox: &SandboxId) -> Result<Option<Route>, CatalogError> {
        match self.routes.get(sandbox) {
            Known::Leads(route) => Ok(Some(route)),
            Known::Gone | Known::Nothing => Ok(None),
        }
    }

    async fn route_remove(
        &self,
        sandbox: &SandboxId,
        node: &str,
        generation: u64,
    ) -> Result<bool, CatalogError> {
        Ok(self.routes.remove(sandbox, node, generation))
    }

    async fn routes_replace(
        &self,
        node: &str,
        new: &[(SandboxId, Route)],
        unsure: &[SandboxId],
    ) -> Result<(), CatalogError> {
        self.routes.replace(node, new, unsure);
        Ok(())
    }
}
