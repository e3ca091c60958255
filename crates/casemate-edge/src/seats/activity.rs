//! What one client connection is doing, told in atomics: each request says so, and whoever needs a
//! seat asks all connections.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// In [`Activity::open`]: the connection is being ended, and no request may begin.
const ENDED: usize = usize::MAX;

pub(crate) struct Activity {
    began: Instant,
    /// Parts of requests that are under way, or [`ENDED`].
    open: AtomicUsize,
    requests: AtomicU64,
    /// When a part of a request last ended, in microseconds since `began`.
    idle_since: AtomicU64,
    /// Bytes wait for the client to take them.
    unsent: AtomicBool,
    /// Ends the connection.
    cut: CancellationToken,
}

impl Activity {
    pub(super) fn new(cut: CancellationToken) -> Self {
        Self {
            began: Instant::now(),
            open: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            unsent: AtomicBool::new(false),
            cut,
        }
    }

    /// A request begins, with one part; `false`: the connection is being ended.
    pub(crate) fn begin(&self) -> bool {
        let more = |open| (open != ENDED).then_some(open + 1);
        let begun = self
            .open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        if begun.is_ok() {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        begun.is_ok()
    }

    /// A further part of a request that is under way.
    pub(crate) fn part_begins(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn part_ends(&self) {
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        // First: whoever sees that nothing is open must see since when.
        self.idle_since.store(micros, Ordering::Relaxed);
        self.open.fetch_sub(1, Ordering::Release);
    }

    /// Requests that have begun.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn is_busy(&self) -> bool {
        !matches!(self.open.load(Ordering::Acquire), 0 | ENDED)
    }

    /// Notes whether a write waits for the client.
    pub(crate) fn set_unsent(&self, unsent: bool) {
        self.unsent.store(unsent, Ordering::Relaxed);
    }

    /// Since when the connection carries no request; `None` while it does. Before the first there
    /// is no answer that could be unsent.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let idle = self.open.load(Ordering::Acquire) == 0;
        let answered = self.requests() == 0 || !self.unsent.load(Ordering::Relaxed);
        let micros = self.idle_since.load(Ordering::Relaxed);
        (idle && answered).then(|| self.began + Duration::from_micros(micros))
    }

    /// Ends the connection, unless a request is under way.
    pub(super) fn end(&self) -> bool {
        let ended = self
            .open
            .compare_exchange(0, ENDED, Ordering::AcqRel, Ordering::Relaxed);
        if ended.is_ok() {
            self.cut.cancel();
        }
        ended.is_ok()
    }
}
