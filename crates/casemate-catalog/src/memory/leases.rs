//! Leases in a map.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use super::MemoryCatalog;
use crate::leases::{LeaseTake, check_lease};
use crate::{CatalogError, Leases};

#[derive(Default)]
pub(crate) struct LeaseTable(Mutex<Table>);

/// Leases that have run out go when the next one is taken.
#[derive(Default)]
struct Table {
    by_name: HashMap<String, Held>,
    last_fence: u64,
}

struct Held {
    holder: String,
    note: String,
    fence: u64,
    until: Instant,
    /// Dropped with the lease: whoever waits for its end sees that.
    _over: watch::Sender<()>,
}

impl Table {
    fn standing(&mut self, name: &str, now: Instant) -> Option<&mut Held> {
        self.by_name.get_mut(name).filter(|held| held.until > now)
    }

    /// By the wall clock, so that fences of different processes are in order, too, about.
    fn fence(&mut self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let micros = since.map_or(0, |since| since.as_micros());
        self.last_fence = u64::try_from(micros)
            .unwrap_or(0)
            .max(self.last_fence.saturating_add(1));
        self.last_fence
    }
}

impl LeaseTable {
    // Each statement leaves the table whole, so a poisoned lock guards nothing that is broken.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(&self, name: &str, holder: &str, note: &str, lasts: Duration) -> LeaseTake {
        let now = Instant::now();
        let mut table = self.lock();
        let mut fence = None;
        if let Some(held) = table.standing(name, now) {
            if held.holder != holder {
                return LeaseTake::Held {
                    holder: held.holder.clone(),
                    note: held.note.clone(),
                    left: held.until - now,
                };
            }
            fence = Some(held.fence);
        }
        table.by_name.retain(|_, held| held.until > now);
        let fence = fence.unwrap_or_else(|| table.fence());
        let held = Held {
            holder: holder.to_owned(),
            note: note.to_owned(),
            fence,
            until: now + lasts,
            _over: watch::Sender::new(()),
        };
        table.by_name.insert(name.to_owned(), held);
        LeaseTake::Taken { fence }
    }

    pub(crate) fn renew(&self, name: &str, holder: &str, lasts: Duration) -> bool {
        let now = Instant::now();
        let mut table = self.lock();
        let held = table.standing(name, now);
        let Some(held) = held.filter(|held| held.holder == holder) else {
            return false;
        };
        held.until = now + lasts;
        true
    }

    pub(crate) fn give(&self, name: &str, holder: &str) -> bool {
        let mut table = self.lock();
        let held = table.standing(name, Instant::now());
        let is_holders = held.is_some_and(|held| held.holder == holder);
        if is_holders {
            table.by_name.remove(name);
        }
        is_holders
    }

    /// What the holder of a lease said of it.
    pub(crate) fn note(&self, name: &str) -> Option<String> {
        let mut table = self.lock();
        let held = table.standing(name, Instant::now());
        held.map(|held| held.note.clone())
    }

    /// See [`Leases::lease_over`].
    pub(crate) async fn over(&self, name: &str) {
        loop {
            let (until, mut over) = {
                let mut table = self.lock();
                match table.standing(name, Instant::now()) {
                    Some(held) => (held.until, held._over.subscribe()),
                    None => return,
                }
            };
            // An error says that it was dropped; either way the next look decides.
            let _ = tokio::time::timeout_at(until, over.changed()).await;
        }
    }
}

#[async_trait]
impl Leases for MemoryCatalog {
    async fn lease_take(
        &self,
        name: &str,
        holder: &str,
        note: &str,
        lasts: Duration,
    ) -> Result<LeaseTake, CatalogError> {
        check_lease(name, holder, note, lasts)?;
        Ok(self.leases.take(name, holder, note, lasts))
    }

    async fn lease_renew(
        &self,
        name: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<bool, CatalogError> {
        check_lease(name, holder, "", lasts)?;
        Ok(self.leases.renew(name, holder, lasts))
    }

    async fn lease_give(&self, name: &str, holder: &str) -> Result<bool, CatalogError> {
        Ok(self.leases.give(name, holder))
    }

    async fn lease_over(&self, name: &str) -> Result<(), CatalogError> {
        self.leases.over(name).await;
        Ok(())
    }
}
