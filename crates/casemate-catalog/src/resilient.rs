//! Redis, and what this process knows without it: its loss costs speed and reach, no request.
//!
//! | while Redis is away | |
//! |---|---|
//! | route put, removed, replaced | noted here, and told to Redis when it is back |
//! | look-up | answered from what this process was told or has looked up; what it knows nothing of is [`CatalogError::Unavailable`], not absent |
//! | lease | this process's own: two servers may have the same, and the store's compare-and-set decides |
//! | rate | [`RateTake::Uncounted`]: it passes |
//! | event | lost; who listens is told of a gap when Redis is back |
//!
//! A Redis that comes back without its data is told what this process was told, by
//! [`ResilientCatalog::filling`]. What is not so any more of that costs an edge a question to a node;
//! without it, edges would ask all nodes for each sandbox from then on.

mod untold;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use casemate_types::{SandboxId, chain};
use tokio_util::task::AbortOnDropHandle;

use self::untold::{Untold, Word};
use crate::leases::check_lease;
use crate::memory::Known;
use crate::{
    Catalog, CatalogError, Events, Health, LeaseTake, Leases, MemoryCatalog, Rate, RateTake, Rates,
    RedisCatalog, Route, Subscription,
};

/// Between two attempts to tell Redis what it missed.
const TELL_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks whether it lost its data.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// Every port over Redis and memory. Dropping it ends the task that tells Redis what it missed.
pub struct ResilientCatalog {
    shared: Arc<Shared>,
    _teller: AbortOnDropHandle<()>,
    _filler: Option<AbortOnDropHandle<()>>,
}

struct Shared {
    redis: RedisCatalog,
    memory: MemoryCatalog,
    untold: Untold,
    /// How often more was missed than is remembered.
    refills: AtomicU64,
}

impl ResilientCatalog {
    /// Remembers up to `routes_max` routes for when Redis is away. To be called inside a runtime.
    pub fn new(redis: RedisCatalog, routes_max: usize) -> Self {
        let shared = Arc::new(Shared {
            redis,
            memory: MemoryCatalog::bounded(routes_max),
            untold: Untold::new(routes_max),
            refills: AtomicU64::new(0),
        });
        let teller = tokio::spawn(tell(Arc::clone(&shared)));
        Self {
            shared,
            _teller: AbortOnDropHandle::new(teller),
            _filler: None,
        }
    }

    /// The same for who knows where sandboxes are without Redis: one that lost its data is told.
    pub fn filling(redis: RedisCatalog, routes_max: usize) -> Self {
        let made = Self::new(redis, routes_max);
        let filler = tokio::spawn(fill(Arc::clone(&made.shared)));
        Self {
            _filler: Some(AbortOnDropHandle::new(filler)),
            ..made
        }
    }
}

impl Shared {
    fn miss(&self, sandbox: &SandboxId, word: Word) {
        if !self.untold.add(sandbox, word) {
            self.refills.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn say(&self, sandbox: &SandboxId, word: &Word) -> Result<(), CatalogError> {
        match word {
            Word::Put(route) => self.redis.route_put(sandbox, route.clone()).await.map(drop),
            Word::Remove { node, generation } => {
                let removed = self.redis.route_remove(sandbox, node, *generation);
                removed.await.map(drop)
            }
        }
    }
}

/// Tells Redis what it missed, whenever there is something and it is up.
async fn tell(shared: Arc<Shared>) {
    loop {
        shared.untold.is_some().await;
        shared.redis.is_up().await;
        while let Some((sandbox, word)) = shared.untold.first() {
            match shared.say(&sandbox, &word).await {
                Ok(()) => shared.untold.told(&sandbox, &word),
                Err(error) => {
                    tracing::debug!(
                        error = chain(&error),
                        "Redis is not told yet of what it missed"
                    );
                    // A full Redis is up and takes nothing.
                    tokio::time::sleep(TELL_PAUSE).await;
                    break;
                }
            }
        }
    }
}

/// Tells Redis all that is known here whenever it has lost what it was told.
async fn fill(shared: Arc<Shared>) {
    let mut filled = None;
    loop {
        shared.redis.is_up().await;
        if let Ok(epoch) = shared.redis.epoch().await {
            if filled.as_ref().is_some_and(|filled| *filled != epoch) {
                let routes = shared.memory.routes.all();
                tracing::info!(
                    routes = routes.len(),
                    "Redis lost its data and is told again"
                );
                for (sandbox, route) in routes {
                    shared.miss(&sandbox, Word::Put(route));
                }
            }
            filled = Some(epoch);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

#[async_trait]
impl Catalog for ResilientCatalog {
    async fn route_put(&self, sandbox: &SandboxId, route: Route) -> Result<bool, CatalogError> {
        let shared = &self.shared;
        if !shared.memory.routes.put(sandbox, route.clone()) {
            return Ok(false);
        }
        // In the order in which they were said: what waits already is told first.
        if shared.untold.replace(sandbox, Word::Put(route.clone())) {
            return Ok(true);
        }
        match shared.redis.route_put(sandbox, route.clone()).await {
            Err(error) if error.is_retryable() => {
                shared.miss(sandbox, Word::Put(route));
                Ok(true)
            }
            said => said,
        }
    }

    async fn route_by_id(&self, sandbox: &SandboxId) -> Result<Option<Route>, CatalogError> {
        let shared = &self.shared;
        let untold = shared.untold.get(sandbox);
        match (shared.redis.route_by_id(sandbox).await, untold) {
            (Ok(there), Some(word)) => Ok(word.over(there)),
            (Ok(there), None) => {
                shared.memory.routes.note(sandbox, there.as_ref());
                Ok(there)
            }
            (Err(_), Some(word)) => Ok(word.over(None)),
            (Err(error), None) => match shared.memory.routes.get(sandbox) {
                Known::Leads(route) => Ok(Some(route)),
                Known::Gone => Ok(None),
                Known::Nothing => Err(error),
            },
        }
    }

    async fn route_remove(
        &self,
        sandbox: &SandboxId,
        node: &str,
        generation: u64,
    ) -> Result<bool, CatalogError> {
        let shared = &self.shared;
        let was_here = shared.memory.routes.remove(sandbox, node, generation);
        let word = || Word::Remove {
            node: node.to_owned(),
            generation,
        };
        if shared.untold.replace(sandbox, word()) {
            return Ok(was_here);
        }
        match shared.redis.route_remove(sandbox, node, generation).await {
            Ok(was_there) => Ok(was_there || was_here),
            Err(error) if error.is_retryable() => {
                shared.miss(sandbox, word());
                Ok(was_here)
            }
            Err(error) => Err(error),
        }
    }

    async fn routes_replace(
        &self,
        node: &str,
        routes: &[(SandboxId, Route)],
        unsure: &[SandboxId],
    ) -> Result<(), CatalogError> {
        let shared = &self.shared;
        let gone = shared.memory.routes.replace(node, routes, unsure);
        // What waits to be told must not undo this.
        for (sandbox, route) in routes {
            shared.untold.replace(sandbox, Word::Put(route.clone()));
        }
        let Err(error) = shared.redis.routes_replace(node, routes, unsure).await else {
            return Ok(());
        };
        if !error.is_retryable() {
            return Err(error);
        }
        for (sandbox, route) in routes {
            shared.miss(sandbox, Word::Put(route.clone()));
        }
        for (sandbox, generation) in gone {
            let node = node.to_owned();
            shared.miss(&sandbox, Word::Remove { node, generation });
        }
        // Of routes that only Redis knows, nobody here can say that they go.
        shared.refills.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Within this process a lease is always exact: it is taken here first.
#[async_trait]
impl Leases for ResilientCatalog {
    async fn lease_take(
        &self,
        name: &str,
        holder: &str,
        note: &str,
        lasts: Duration,
    ) -> Result<LeaseTake, CatalogError> {
        check_lease(name, holder, note, lasts)?;
        let here = &self.shared.memory.leases;
        let taken = here.take(name, holder, note, lasts);
        if matches!(taken, LeaseTake::Held { .. }) {
            return Ok(taken);
        }
        match self
            .shared
            .redis
            .lease_take(name, holder, note, lasts)
            .await
        {
            Err(error) if error.is_retryable() => Ok(taken),
            Ok(LeaseTake::Taken { fence }) => Ok(LeaseTake::Taken { fence }),
            other => {
                here.give(name, holder);
                other
            }
        }
    }

    async fn lease_renew(
        &self,
        name: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<bool, CatalogError> {
        check_lease(name, holder, "", lasts)?;
        let here = &self.shared.memory.leases;
        if !here.renew(name, holder, lasts) {
            return Ok(false);
        }
        let renewed = match self.shared.redis.lease_renew(name, holder, lasts).await {
            // It was taken while Redis was away, or Redis has lost it: nobody else may have it now.
            Ok(false) => {
                let note = here.note(name).unwrap_or_default();
                let taken = self.shared.redis.lease_take(name, holder, &note, lasts);
                taken
                    .await
                    .map(|taken| matches!(taken, LeaseTake::Taken { .. }))
            }
            renewed => renewed,
        };
        match renewed {
            Err(error) if error.is_retryable() => Ok(true),
            Ok(true) => Ok(true),
            Ok(false) => {
                here.give(name, holder);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn lease_give(&self, name: &str, holder: &str) -> Result<bool, CatalogError> {
        let was_here = self.shared.memory.leases.give(name, holder);
        match self.shared.redis.lease_give(name, holder).await {
            Ok(was_there) => Ok(was_here || was_there),
            // It runs out there.
            Err(error) if error.is_retryable() => Ok(was_here),
            Err(error) => Err(error),
        }
    }

    async fn lease_over(&self, name: &str) -> Result<(), CatalogError> {
        self.shared.memory.leases.over(name).await;
        match self.shared.redis.lease_over(name).await {
            Err(error) if error.is_retryable() => Ok(()),
            over => over,
        }
    }
}

#[async_trait]
impl Rates for ResilientCatalog {
    async fn rate_take(&self, key: &str, rate: Rate) -> Result<RateTake, CatalogError> {
        match self.shared.redis.rate_take(key, rate).await {
            Err(error) if error.is_retryable() => Ok(RateTake::Uncounted),
            taken => taken,
        }
    }
}

#[async_trait]
impl Events for ResilientCatalog {
    async fn publish(&self, topic: &str, payload: &[u8]) -> Result<(), CatalogError> {
        match self.shared.redis.publish(topic, payload).await {
            Err(error) if error.is_retryable() => Ok(()),
            published => published,
        }
    }

    async fn subscribe(&self, topics: &[&str]) -> Result<Subscription, CatalogError> {
        self.shared.redis.subscribe(topics).await
    }
}

/// Of Redis: whoever asks wants to know.
#[async_trait]
impl Health for ResilientCatalog {
    async fn ping(&self) -> Result<(), CatalogError> {
        self.shared.redis.ping().await
    }

    async fn epoch(&self) -> Result<String, CatalogError> {
        let epoch = self.shared.redis.epoch().await?;
        let refills = self.shared.refills.load(Ordering::Relaxed);
        Ok(format!("{epoch}.{refills}"))
    }
}
