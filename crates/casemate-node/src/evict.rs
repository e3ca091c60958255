//! Making room: what lies in the bucket too goes from here, the least recently used first.
//!
//! ```text
//! chosen and noted as leaving, under the table's lock ─▶ removed ─▶ forgotten
//! ```
//!
//! A create that names it comes either before that, and it stays, or after it, and is refused as of what
//! is not here: then it is fetched, once its removal is over. What a crash leaves of a removal goes with
//! the next start.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use casemate_rpc::{NodeCache, NodeEvent};
use casemate_types::{Portable, chain};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::admission::LAYERS_LEFT_MIN;
use crate::cache;
use crate::layers::Leaving;
use crate::node::Inner;
use crate::table::{Row, Table};

/// How long a create waits until sandboxes can use the room that was made for them.
const ROOM_MAX: Duration = Duration::from_secs(3);
/// How often it looks.
const ROOM_LOOK: Duration = Duration::from_millis(50);

/// Whose room is wanted: layers lie on the data directory's disk, files where sandboxes write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Any,
    Layers,
    Files,
}

impl Wanted {
    fn is(self, what: &Portable) -> bool {
        matches!(
            (self, what),
            (Self::Any, _)
                | (Self::Layers, Portable::Layer(_))
                | (Self::Files, Portable::Snapshot(_))
        )
    }
}

impl Table {
    /// What a sandbox lies over or is about to begin with, and what is on its way.
    fn needed(&self) -> BTreeSet<Portable> {
        let of_rows = self.sandboxes.values().flat_map(|row| match row {
            Row::Booting { layers, files, .. } => cache::portables(layers, files.as_ref()),
            Row::Running { layers, .. } => cache::portables(layers, None),
        });
        let mut needed: BTreeSet<Portable> = of_rows.collect();
        needed.extend(self.carried.keys().cloned());
        needed.extend(self.leaving.iter().cloned());
        needed
    }
}

impl Inner {
    /// The bucket has these.
    pub(crate) fn stored(self: &Arc<Self>, whats: &[Portable]) {
        let unmeasured = self.lock().cache.stored(whats, Instant::now());
        let node = Arc::clone(self);
        self.tasks.spawn(async move {
            node.measure(unmeasured).await;
            node.keep_bound().await;
        });
    }

    async fn measure(&self, whats: Vec<Portable>) {
        let _one = self.measuring.lock().await;
        for what in whats {
            match self.snapshots.measure(&what).await {
                Ok(found) => self.lock().cache.measured(&what, found, Instant::now()),
                Err(failed) => {
                    let error = chain(&failed);
                    warn!(error, "cannot measure {what}");
                }
            }
        }
    }

    /// Notes that these are used.
    pub(crate) fn note_use(&self, whats: Vec<Portable>) {
        let due = self.lock().cache.used(whats, Instant::now());
        if !due.is_empty() {
            let snapshots = Arc::clone(&self.snapshots);
            self.tasks
                .spawn(async move { snapshots.note_use(&due).await });
        }
    }

    /// What is kept, for whoever asks.
    pub(crate) fn cache_of(&self, table: &Table) -> NodeCache {
        NodeCache {
            bytes: table.cache.bytes(Instant::now()),
            bytes_max: self.config.cache_bytes_max,
            evictions: table.cache.evictions(),
        }
    }

    /// Now and then, and when something came: what is beyond the bound goes; and what is in the way of
    /// sandboxes that write, before any of them finds the disk full.
    pub(crate) async fn keep_bound(self: &Arc<Self>) {
        let Ok(_one) = self.evicting.try_lock() else {
            return;
        };
        let bounded = self.evict_beyond(0).await;
        let spare = self.config.admission.disk_reserve_bytes.saturating_mul(2);
        let spared = self.evict_below(spare).await;
        self.tell_evicted(bounded || spared);
    }

    /// Before about so many bytes come of something. Where there is not enough, nothing says so: it
    /// breaks off.
    pub(crate) async fn make_room_for(self: &Arc<Self>, what: &Portable, bytes: u64) {
        let _one = self.evicting.lock().await;
        let bounded = self.evict_beyond(bytes).await;
        let reserve = self.config.admission.disk_reserve_bytes;
        let made = match what {
            Portable::Layer(_) => self.evict_below(reserve.saturating_add(bytes)).await,
            Portable::Snapshot(_) => self.evict_files(bytes).await > 0,
        };
        self.tell_evicted(bounded || made);
    }

    /// Before a sandbox, or a layer, is refused because a disk is full: whether that may be otherwise
    /// now.
    pub(crate) async fn make_room(self: &Arc<Self>) -> bool {
        let _one = self.evicting.lock().await;
        // The pool of writable layers grows with what is free beyond the reserve.
        let spare = self.config.admission.disk_reserve_bytes.saturating_mul(2);
        let mut made = self.evict_below(spare).await;
        if self.pool_left() < LAYERS_LEFT_MIN {
            made |= self.evict_files(LAYERS_LEFT_MIN).await > 0;
            let end = Instant::now() + ROOM_MAX;
            while made && self.pool_left() < LAYERS_LEFT_MIN && Instant::now() < end {
                tokio::time::sleep(ROOM_LOOK).await;
            }
        }
        self.machine.forget();
        self.tell_evicted(made);
        made
    }

    fn tell_evicted(&self, evicted: bool) {
        if evicted {
            let info = NodeEvent::Heartbeat(Box::new(self.info()));
            self.events.publish(info);
        }
    }

    /// Until so many bytes more are within the bound.
    async fn evict_beyond(self: &Arc<Self>, bytes: u64) -> bool {
        let mut evicted = false;
        let is_beyond = || {
            let kept = self.lock().cache.bytes(Instant::now());
            kept.saturating_add(bytes) > self.config.cache_bytes_max
        };
        while is_beyond() && self.evict_one(Wanted::Any).await.is_some() {
            evicted = true;
        }
        evicted
    }

    /// Until so many bytes of the disk are free.
    async fn evict_below(self: &Arc<Self>, free_bytes: u64) -> bool {
        let mut evicted = false;
        let is_below = || self.disk_free() < free_bytes;
        while is_below() && self.evict_one(Wanted::Layers).await.is_some() {
            evicted = true;
        }
        evicted
    }

    /// Until so many bytes more can be written to the pool. The kernel gives them back later.
    async fn evict_files(self: &Arc<Self>, bytes: u64) -> u64 {
        let wanted = bytes.saturating_add(LAYERS_LEFT_MIN);
        let lacks = wanted.saturating_sub(self.pool_left());
        let mut freed = 0_u64;
        while freed < lacks
            && let Some(bytes) = self.evict_one(Wanted::Files).await
        {
            // One that takes nothing alone may be what makes the others' bytes come back.
            freed = freed.saturating_add(bytes.max(1));
        }
        freed
    }

    fn pool_left(&self) -> u64 {
        self.runtime.stock().bytes_left.unwrap_or(u64::MAX)
    }

    fn disk_free(&self) -> u64 {
        self.machine.forget();
        self.machine
            .recent(&self.config.journal_dir)
            .disk_free_bytes
    }

    /// The bytes that it took. `None`: there is nothing that may go, or it does not. Whoever calls holds
    /// [`Inner::evicting`].
    async fn evict_one(self: &Arc<Self>, wanted: Wanted) -> Option<u64> {
        if self.draining.load(Ordering::SeqCst) {
            return None;
        }
        let leaving = {
            let mut table = self.lock();
            let needed = table.needed();
            let first = table
                .cache
                .first_to_go(Instant::now(), &needed, |what| wanted.is(what));
            let what = first?;
            table.leaving.insert(what.clone());
            Leaving::noted(self, what)
        };
        // A removal that is begun is finished, whoever waits for it.
        let evicting = self.tasks.spawn(evict(leaving));
        evicting.await.ok().flatten()
    }
}

async fn evict(leaving: Leaving) -> Option<u64> {
    let (node, what) = (&leaving.node, &leaving.what);
    let removed = match what {
        Portable::Layer(layer) => node.snapshots.remove_layer(layer).await,
        Portable::Snapshot(snapshot) => node.snapshots.remove(snapshot).await,
    };
    match removed {
        Ok(()) => {
            let bytes = node.lock().cache.evicted(what);
            info!(bytes, "evicted {what}, which the bucket has too");
            Some(bytes)
        }
        Err(failed) => {
            // Others first, the next time.
            node.lock().cache.used(vec![what.clone()], Instant::now());
            let error = chain(&failed);
            warn!(error, "cannot evict {what}");
            None
        }
    }
}
