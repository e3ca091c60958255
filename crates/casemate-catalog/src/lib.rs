//! Who runs where, and what servers tell each other.
//!
//! Owns the ports [`Catalog`] (routes), [`Leases`], [`Rates`], [`Events`] and [`Health`], and their
//! adapters: memory, for one process; Redis, for several; and both as one that outlives the loss of
//! Redis. All of it is a cache: it can be lost at any moment and is filled again (decision 4), so
//! nothing that is only here may matter. It must not know SQL, HTTP, or how a node is reached.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
pub mod events;
pub mod leases;
pub mod memory;
pub mod rates;
pub mod redis;
pub mod resilient;
pub mod routes;
#[cfg(feature = "testing")]
pub mod testing;

pub use self::redis::{Password, RedisCatalog, RedisSettings, RedisTryError, try_out};
pub use error::CatalogError;
pub use events::{Events, Notice, Subscription};
pub use leases::{LeaseTake, Leases};
pub use memory::MemoryCatalog;
pub use rates::{Rate, RateTake, Rates};
pub use resilient::ResilientCatalog;
pub use routes::{Catalog, Health, Route, TokenHash};
