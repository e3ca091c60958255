//! Leases in Redis: a key that runs out, and a channel that says when it is given.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::link::{Again, Ask};
use super::{RedisCatalog, read};
use crate::leases::{LeaseTake, check_lease};
use crate::{CatalogError, Leases};

/// How often it is looked whether a lease is over: the event of its end may be lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whole milliseconds, at least one.
fn milliseconds(lasts: Duration) -> u64 {
    u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl RedisCatalog {
    /// How long a lease is held yet; `None`: it is not.
    async fn lease_left(&self, name: &str) -> Result<Option<Duration>, CatalogError> {
        let mut left = Cmd::new();
        left.arg("PTTL").arg(self.key("lease:", name));
        let answer = self.link.ask(Ask::Command(left), Again::Yes).await?;
        let left: i64 = read("the end of a lease", answer)?;
        // Below zero: there is none.
        Ok(u64::try_from(left).ok().map(Duration::from_millis))
    }
}

#[async_trait]
impl Leases for RedisCatalog {
    async fn lease_take(
        &self,
        name: &str,
        holder: &str,
        note: &str,
        lasts: Duration,
    ) -> Result<LeaseTake, CatalogError> {
        check_lease(name, holder, note, lasts)?;
        let mut take = self.scripts.lease_take.prepare_invoke();
        take.key(self.key("lease:", name))
            .key(self.key("fence", ""));
        take.arg(holder).arg(note).arg(milliseconds(lasts));
        let answer = self.link.ask(Ask::Script(take), Again::Yes).await?;
        let is_taken = matches!(&answer, Value::Array(parts) if parts.len() == 1);
        if is_taken {
            let (fence,) = read("the fence of a lease", answer)?;
            return Ok(LeaseTake::Taken { fence });
        }
        let (holder, note, left): (String, String, i64) = read("a lease", answer)?;
        Ok(LeaseTake::Held {
            holder,
            note,
            left: Duration::from_millis(u64::try_from(left).unwrap_or(0)),
        })
    }

    async fn lease_renew(
        &self,
        name: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<bool, CatalogError> {
        check_lease(name, holder, "", lasts)?;
        let mut renew = self.scripts.lease_renew.prepare_invoke();
        renew.key(self.key("lease:", name));
        renew.arg(holder).arg(milliseconds(lasts));
        let answer = self.link.ask(Ask::Script(renew), Again::Yes).await?;
        read("the answer to a renewal", answer)
    }

    async fn lease_give(&self, name: &str, holder: &str) -> Result<bool, CatalogError> {
        let mut give = self.scripts.lease_give.prepare_invoke();
        give.key(self.key("lease:", name));
        give.arg(holder).arg(self.key("over:", name));
        let answer = self.link.ask(Ask::Script(give), Again::Yes).await?;
        read("the answer to a lease's end", answer)
    }

    async fn lease_over(&self, name: &str) -> Result<(), CatalogError> {
        // Mostly nobody holds it.
        if self.lease_left(name).await?.is_none() {
            return Ok(());
        }
        let mut over = self.hub.subscribe("over:", &[name]);
        while let Some(left) = self.lease_left(name).await? {
            let left = left.min(LOOK_EVERY) + Duration::from_millis(1);
            // Whatever it says, the next look decides.
            let _ = tokio::time::timeout(left, over.next()).await;
        }
        Ok(())
    }
}
