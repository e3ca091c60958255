//! The port of events: short words from one process to all that listen. Best effort: whoever
//! listens reads the truth where it is after each [`Notice::Gap`], and from time to time.

mod hub;

use async_trait::async_trait;

pub(crate) use hub::Hub;
pub use hub::Subscription;

use crate::CatalogError;

/// Bytes of a topic's name.
pub const TOPIC_BYTES_MAX: usize = 200;
/// Topics of one subscription.
pub const TOPICS_MAX: usize = 64;
/// Bytes of one event.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024;
/// Events that a subscription keeps for a receiver that is behind; beyond it they are dropped, and
/// it is told of a gap.
pub const BACKLOG_MAX: usize = 1024;

/// What a subscription says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Event {
        topic: String,
        payload: Vec<u8>,
    },
    /// Something may have been missed before this, and from now on nothing is: the subscription
    /// begins, the connection was lost and is back, or the receiver was too slow. Read what the
    /// events are about.
    Gap,
}

#[async_trait]
pub trait Events: Send + Sync {
    /// Tells all that listen now, this process too. [`CatalogError::Limit`] for what is longer than
    /// this module's limits.
    async fn publish(&self, topic: &str, payload: &[u8]) -> Result<(), CatalogError>;

    /// Listens to `topics`. What it says begins with a [`Notice::Gap`], as soon as events arrive: at
    /// once, or when a catalog that is away is back. [`CatalogError::Limit`] for what is
    /// longer or more than this module's limits.
    async fn subscribe(&self, topics: &[&str]) -> Result<Subscription, CatalogError>;
}

pub(crate) fn check_topic(topic: &str) -> Result<(), CatalogError> {
    if (1..=TOPIC_BYTES_MAX).contains(&topic.len()) {
        return Ok(());
    }
    Err(CatalogError::Limit {
        what: "the name of a topic",
        limit: "1 to 200 bytes",
    })
}

pub(crate) fn check_topics(topics: &[&str]) -> Result<(), CatalogError> {
    if topics.len() > TOPICS_MAX {
        return Err(CatalogError::Limit {
            what: "a subscription",
            limit: "64 topics",
        });
    }
    topics.iter().try_for_each(|topic| check_topic(topic))
}

pub(crate) fn check_payload(payload: &[u8]) -> Result<(), CatalogError> {
    if payload.len() <= PAYLOAD_BYTES_MAX {
        return Ok(());
    }
    Err(CatalogError::Limit {
        what: "an event",
        limit: "8 KiB",
    })
}
