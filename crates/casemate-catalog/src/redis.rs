//! The catalog that several servers share: Redis 7, or what speaks as one.
//!
//! Every change is one script, which Redis runs as one step; a look-up is one command. What begins
//! with the prefix in braces lies in one slot of a cluster, should one come. Nothing here is
//! written to be kept: a Redis that comes back empty is told of it by [`Health::epoch`].
//!
//! | key, after `{PREFIX}:` | is |
//! |---|---|
//! | `route:SANDBOX` | hash: generation, node, the route as JSON; without the last two it was removed |
//! | `node:NODE` | set: the sandboxes whose routes lead there |
//! | `lease:NAME`, `fence` | hash: holder, note, fence; the last fence that was given |
//! | `rate:KEY` | when the bucket is full, in microseconds |
//! | `epoch` | a random text |
//! | channel `event:TOPIC`, `over:NAME` | events; the end of a lease |

mod dial;
mod leases;
mod link;
mod rates;
mod routes;
mod settings;

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Cmd, FromRedisValue, Script, Value};

pub use dial::{AuthorityError, DialError};
pub use settings::{Password, RedisSettings, RedisSettingsError};

use self::dial::Dialer;
use self::link::{Again, Ask, Link};
use crate::events::{self, Hub};
use crate::{CatalogError, Events, Health, Subscription};

/// Every port, in one Redis, over one connection.
pub struct RedisCatalog {
    link: Link,
    hub: Arc<Hub>,
    prefix: String,
    scripts: Scripts,
}

/// Sent as text once, and by their hash from then on.
struct Scripts {
    route_put: Script,
    route_remove: Script,
    routes_replace: Script,
    lease_take: Script,
    lease_renew: Script,
    lease_give: Script,
    rate: Script,
    epoch: Script,
}

/// Why there is no such catalog. That Redis is away is no reason.
#[derive(Debug, thiserror::Error)]
pub enum RedisOpenError {
    #[error(transparent)]
    Settings(#[from] RedisSettingsError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// Why a Redis cannot be used now.
#[derive(Debug, thiserror::Error)]
pub enum RedisTryError {
    #[error(transparent)]
    Open(#[from] RedisOpenError),
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// Whether there is a Redis that lets us in.
pub async fn try_out(settings: RedisSettings) -> Result<(), RedisTryError> {
    settings.check().map_err(RedisOpenError::from)?;
    let dialer = Dialer::new(settings).map_err(RedisOpenError::from)?;
    dialer.dial(|_| Ok(())).await?;
    Ok(())
}

impl RedisCatalog {
    /// Begins to connect and returns; goes on to as long as it lives. To be called inside a
    /// runtime.
    pub fn open(settings: RedisSettings) -> Result<Self, RedisOpenError> {
        settings.check()?;
        let prefix = format!("{{{}}}:", settings.prefix);
        let hub = Hub::of_many();
        let dialer = Dialer::new(settings)?;
        Ok(Self {
            link: Link::new(dialer, Arc::clone(&hub), prefix.clone()),
            hub,
            prefix,
            scripts: Scripts {
                route_put: Script::new(include_str!("redis/route_put.lua")),
                route_remove: Script::new(include_str!("redis/route_remove.lua")),
                routes_replace: Script::new(include_str!("redis/routes_replace.lua")),
                lease_take: Script::new(include_str!("redis/lease_take.lua")),
                lease_renew: Script::new(include_str!("redis/lease_renew.lua")),
                lease_give: Script::new(include_str!("redis/lease_give.lua")),
                rate: Script::new(include_str!("redis/rate.lua")),
                epoch: Script::new(include_str!("redis/epoch.lua")),
            },
        })
    }

    /// Returns when it is connected, at once if it is.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub(crate) async fn is_up(&self) {
        self.link.is_up().await;
    }

    fn key(&self, kind: &str, name: &str) -> String {
        format!("{}{kind}{name}", self.prefix)
    }
}

/// An answer as what it must be.
fn read<T: FromRedisValue>(what: &'static str, answer: Value) -> Result<T, CatalogError> {
    redis::from_redis_value(answer).map_err(|source| CatalogError::Damaged {
        what,
        source: Box::new(source),
    })
}

#[async_trait]
impl Events for RedisCatalog {
    async fn publish(&self, topic: &str, payload: &[u8]) -> Result<(), CatalogError> {
        events::check_topic(topic)?;
        events::check_payload(payload)?;
        let mut publish = Cmd::new();
        publish
            .arg("PUBLISH")
            .arg(self.key("event:", topic))
            .arg(payload);
        self.link.ask(Ask::Command(publish), Again::No).await?;
        Ok(())
    }

    async fn subscribe(&self, topics: &[&str]) -> Result<Subscription, CatalogError> {
        events::check_topics(topics)?;
        Ok(self.hub.subscribe("event:", topics))
    }
}

#[async_trait]
impl Health for RedisCatalog {
    async fn ping(&self) -> Result<(), CatalogError> {
        let mut ping = Cmd::new();
        ping.arg("PING");
        self.link.ask(Ask::Command(ping), Again::Yes).await?;
        Ok(())
    }

    async fn epoch(&self) -> Result<String, CatalogError> {
        let mut epoch = self.scripts.epoch.prepare_invoke();
        epoch.key(self.key("epoch", ""));
        epoch.arg(casemate_types::InstanceId::random().to_string());
        let answer = self.link.ask(Ask::Script(epoch), Again::Yes).await?;
        read("the epoch", answer)
    }
}
