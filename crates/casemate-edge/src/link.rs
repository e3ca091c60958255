//! What the edge holds for each sandbox that it talks to: open requests, idle connections to envd,
//! and the signal that the sandbox has ended.
//!
//! A link exists while a request is open or a connection idles, and belongs to one run of a
//! sandbox: [`Links::forget`] ends it, and whatever comes later gets a new one. It is made *before*
//! the route is looked up, so that a sandbox that ends in between is either not found or ends the
//! request; never neither.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use casemate_types::SandboxId;
use tokio_util::sync::CancellationToken;

use crate::upstream::Upstream;

pub(crate) struct Links {
    by_sandbox: Mutex<HashMap<SandboxId, Arc<Link>>>,
    idle_max: usize,
    idle_timeout: Duration,
}

struct Link {
    /// The sandbox ended; cancelled once, before `idle` is emptied for good.
    ended: CancellationToken,
    open: AtomicU32,
    /// The most recently used last.
    idle: Mutex<Vec<(Instant, Upstream)>>,
    /// Held while a connection is being made ahead of need.
    warming: tokio::sync::Mutex<()>,
}

/// One open request's hold on its sandbox's link.
pub(crate) struct Lease {
    links: Arc<Links>,
    sandbox: SandboxId,
    link: Arc<Link>,
    /// Whether it stands for a request.
    counts: bool,
}

impl Links {
    pub(crate) fn new(idle_max: usize, idle_timeout: Duration) -> Self {
        Self {
            by_sandbox: Mutex::new(HashMap::new()),
            idle_max,
            idle_timeout,
        }
    }

    pub(crate) fn lease(self: &Arc<Self>, sandbox: &SandboxId) -> Lease {
        let mut lease = self.lease_uncounted(sandbox);
        lease.counts = true;
        lease.link.open.fetch_add(1, Ordering::Relaxed);
        lease
    }

    /// A hold that is no request.
    pub(crate) fn lease_uncounted(self: &Arc<Self>, sandbox: &SandboxId) -> Lease {
        let link = {
            let mut map = self.map();
            match map.get(sandbox) {
                Some(link) => Arc::clone(link),
                None => {
                    let link = Arc::new(Link {
                        ended: CancellationToken::new(),
                        open: AtomicU32::new(0),
                        idle: Mutex::new(Vec::new()),
                        warming: tokio::sync::Mutex::new(()),
                    });
                    map.insert(sandbox.clone(), Arc::clone(&link));
                    link
                }
            }
        };
        Lease {
            links: Arc::clone(self),
            sandbox: sandbox.clone(),
            link,
            counts: false,
        }
    }

    /// The sandbox ended: cuts its open requests and closes its idle connections.
    pub(crate) fn forget(&self, sandbox: &SandboxId) {
        let link = self.map().remove(sandbox);
        if let Some(link) = link {
            link.ended.cancel();
            let idle = std::mem::take(&mut *link.idle());
            drop(idle);
        }
    }

    /// Closes connections that were idle for too long or closed by envd, and drops links that
    /// nothing uses.
    pub(crate) fn sweep(&self) {
        let mut closed = Vec::new();
        self.map().retain(|_, link| {
            let mut idle = link.idle();
            closed.extend(
                idle.extract_if(.., |(since, upstream)| {
                    since.elapsed() >= self.idle_timeout || upstream.is_closed()
                })
                .map(|(_, upstream)| upstream),
            );
            !idle.is_empty() || Arc::strong_count(link) > 1
        });
        // Outside the lock: closing takes other locks.
        drop(closed);
    }

    /// How many sandboxes have a link, and how many connections idle in all.
    pub(crate) fn count(&self) -> (usize, usize) {
        let map = self.map();
        (map.len(), map.values().map(|link| link.idle().len()).sum())
    }

    fn map(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<Link>>> {
        self.by_sandbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn idle(&self) -> MutexGuard<'_, Vec<(Instant, Upstream)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    pub(crate) fn sandbox(&self) -> &SandboxId {
        &self.sandbox
    }

    /// Cancelled when the sandbox ends.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.link.ended
    }

    /// Requests open to the sandbox now, this one included.
    pub(crate) fn open(&self) -> u32 {
        self.link.open.load(Ordering::Relaxed)
    }

    /// While the guard lives, requests wait for the connection that its holder makes.
    pub(crate) async fn warming(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.link.warming.lock().await
    }

    /// An idle connection to envd, or the one that is being made ahead of need.
    pub(crate) async fn take_idle_or_warm(&self) -> Option<Upstream> {
        if let Some(upstream) = self.take_idle() {
            return Some(upstream);
        }
        if self.link.warming.try_lock().is_err() {
            drop(self.warming().await);
        }
        self.take_idle()
    }

    /// An idle connection to envd, warmest first.
    fn take_idle(&self) -> Option<Upstream> {
        let mut idle = self.link.idle();
        loop {
            let (since, upstream) = idle.pop()?;
            if upstream.is_ready() && since.elapsed() < self.links.idle_timeout {
                return Some(upstream);
            }
        }
    }

    /// Keeps a connection to envd for the next request, unless there are enough or the sandbox
    /// ended.
    pub(crate) fn keep(&self, upstream: Upstream) {
        let mut idle = self.link.idle();
        if idle.len() < self.links.idle_max && !self.link.ended.is_cancelled() {
            idle.push((Instant::now(), upstream));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.counts {
            self.link.open.fetch_sub(1, Ordering::Relaxed);
        }
        if !self.link.idle().is_empty() {
            return;
        }
        let mut map = self.links.map();
        // Leases are made under this lock, so two holders (the map and us) stay two.
        let last = Arc::strong_count(&self.link) == 2 && self.link.idle().is_empty();
        if last
            && map
                .get(&self.sandbox)
                .is_some_and(|link| Arc::ptr_eq(link, &self.link))
        {
            map.remove(&self.sandbox);
        }
    }
}
