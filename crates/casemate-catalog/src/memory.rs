//! The catalog of one process: maps in memory, filled from the node after a start.

mod leases;
mod routes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::events::{self, Hub};
use crate::rates::{self, Rate, RateTake, Rates};
use crate::{CatalogError, Events, Health, Subscription};

use leases::LeaseTable;
pub(crate) use routes::{Known, RouteTable};

/// Buckets after which those that are full again are looked for and forgotten.
const BUCKETS_SWEPT_AT: usize = 1024;

/// Every port, for one process.
pub struct MemoryCatalog {
    pub(crate) routes: RouteTable,
    pub(crate) leases: LeaseTable,
    buckets: Mutex<Buckets>,
    hub: Arc<Hub>,
    begun: Instant,
}

struct Buckets {
    /// When each is full, in microseconds since `begun`.
    full_at: HashMap<String, f64>,
    sweep_at: usize,
}

impl Default for MemoryCatalog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryCatalog {
    pub fn new() -> Self {
        Self::with_routes(RouteTable::new(usize::MAX))
    }

    /// One that forgets the routes that it was told of longest ago beyond `routes_max`.
    pub fn bounded(routes_max: usize) -> Self {
        Self::with_routes(RouteTable::new(routes_max))
    }

    fn with_routes(routes: RouteTable) -> Self {
        Self {
            routes,
            leases: LeaseTable::default(),
            buckets: Mutex::new(Buckets {
                full_at: HashMap::new(),
                sweep_at: BUCKETS_SWEPT_AT,
            }),
            hub: Hub::within(),
            begun: Instant::now(),
        }
    }
}

#[async_trait]
impl Rates for MemoryCatalog {
    async fn rate_take(&self, key: &str, rate: Rate) -> Result<RateTake, CatalogError> {
        rates::check_rate(key, rate)?;
        let now = self.begun.elapsed().as_secs_f64() * 1e6;
        // Each statement leaves the map whole.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.full_at.len() >= buckets.sweep_at {
            buckets.full_at.retain(|_, full_at| *full_at > now);
            buckets.sweep_at = BUCKETS_SWEPT_AT.max(buckets.full_at.len() * 2);
        }
        let (took, full_at) = rates::take(rate, buckets.full_at.get(key).copied(), now);
        buckets.full_at.insert(key.to_owned(), full_at);
        Ok(took)
    }
}

#[async_trait]
impl Events for MemoryCatalog {
    async fn publish(&self, topic: &str, payload: &[u8]) -> Result<(), CatalogError> {
        events::check_topic(topic)?;
        events::check_payload(payload)?;
        self.hub.tell(topic, payload);
        Ok(())
    }

    async fn subscribe(&self, topics: &[&str]) -> Result<Subscription, CatalogError> {
        events::check_topics(topics)?;
        Ok(self.hub.subscribe("", topics))
    }
}

/// It is there as long as its process, which begins with an empty one.
#[async_trait]
impl Health for MemoryCatalog {
    async fn ping(&self) -> Result<(), CatalogError> {
        Ok(())
    }

    async fn epoch(&self) -> Result<String, CatalogError> {
        Ok("memory".into())
    }
}
