//! A stock of things made ahead: takers wait for one, a filler is told when one is wanted.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

/// See the module.
#[derive(Debug)]
pub(crate) struct Shelf<T> {
    items: Mutex<VecDeque<T>>,
    /// One permit for each item.
    ready: Semaphore,
    /// With so many the filler is left asleep: waking it costs each taker.
    enough: usize,
    /// Woken when little is left or something is waited for.
    wanted: Notify,
    /// Takers that wait now.
    waiting: std::sync::atomic::AtomicUsize,
}

impl<T> Shelf<T> {
    /// The filler is told when fewer than `enough` are left.
    pub(crate) fn new(enough: usize) -> Self {
        Self {
            enough,
            items: Mutex::new(VecDeque::new()),
            ready: Semaphore::new(0),
            wanted: Notify::new(),
            waiting: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    pub(crate) fn put(&self, item: T) {
        self.lock().push_back(item);
        self.ready.add_permits(1);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// How many more are wanted for a stock of `target`.
    pub(crate) fn missing(&self, target: usize) -> usize {
        let waiting = self.waiting.load(std::sync::atomic::Ordering::Relaxed);
        (target + waiting).saturating_sub(self.ready.available_permits())
    }

    /// Whether somebody waits for an item now.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.load(std::sync::atomic::Ordering::Relaxed) > 0
    }

    /// The oldest item; `None` when none came in time or the shelf was closed.
    ///
    /// # Cancel safety
    /// Nothing is taken when the future is dropped.
    pub(crate) async fn take(&self, patience: Duration) -> Option<T> {
        let permit = match self.ready.try_acquire() {
            Ok(permit) => permit,
            Err(tokio::sync::TryAcquireError::Closed) => return None,
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                let _waiting = Waiting::new(&self.waiting);
                self.wanted.notify_one();
                tokio::time::timeout(patience, self.ready.acquire())
                    .await
                    .ok()?
                    .ok()?
            }
        };
        permit.forget();
        if self.ready.available_permits() < self.enough {
            self.wanted.notify_one();
        }
        self.lock().pop_front()
    }

    /// Waits until something may be wanted.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.ready.is_closed()
    }

    /// Ends the stock: takers get none, and what was there comes out.
    pub(crate) fn close(&self) -> Vec<T> {
        self.ready.close();
        self.lock().drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        // Pushing and popping leave nothing half done.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Waiting<'a>(&'a std::sync::atomic::AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a std::sync::atomic::AtomicUsize) -> Self {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn takers_get_the_oldest_or_run_out_of_patience() {
        let shelf = Shelf::new(9);
        shelf.put(1);
        shelf.put(2);
        assert_eq!(shelf.take(Duration::ZERO).await, Some(1));
        assert_eq!(shelf.missing(3), 2);
        assert_eq!(shelf.take(Duration::ZERO).await, Some(2));
        assert_eq!(shelf.take(Duration::from_secs(1)).await, None);
        assert_eq!(shelf.missing(3), 3);
        shelf.put(3);
        assert_eq!(shelf.close(), vec![3]);
        assert_eq!(shelf.take(Duration::ZERO).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_counts_as_wanted() {
        let shelf = Shelf::new(9);
        let taker = shelf.take(Duration::from_secs(5));
        tokio::pin!(taker);
        assert!(futures_poll_once(taker.as_mut()).await.is_none());
        assert_eq!(shelf.missing(0), 1);
        shelf.put('a');
        assert_eq!(taker.await, Some('a'));
        assert_eq!(shelf.missing(0), 0);
    }

    async fn futures_poll_once<F: Future + Unpin>(future: F) -> Option<F::Output> {
        tokio::time::timeout(Duration::ZERO, future).await.ok()
    }
}
