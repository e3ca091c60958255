//! What happened to sandboxes a short while ago, where two tasks may pass each other.
//!
//! - *ended*: the node reported an end; a create whose row comes later learns of it.
//! - *doomed*: a create failed without a known result; if the sandbox shows up, it is ended at
//!   once instead of after the orphans' grace.
//! - *made*: a create of this server wrote its row; where several share the store, whoever noted the
//!   end may have looked before that.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use casemate_types::{EndReason, SandboxId, Timestamp};

/// How long an entry is of use: a create is in flight for a minute at most, and an event of the
/// node is not late by as much.
const KEPT: Duration = Duration::from_secs(120);
/// Entries of each kind; beyond it the oldest are forgotten even sooner.
const ENTRIES_MAX: usize = 16_384;

#[derive(Default)]
pub(crate) struct Recent {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    ended: Ring<End>,
    doomed: Ring<()>,
    made: Ring<()>,
}

#[derive(Clone, Copy)]
struct End {
    reason: EndReason,
    at: Timestamp,
    noted: bool,
}

struct Ring<T> {
    order: VecDeque<(Instant, SandboxId)>,
    entries: HashMap<SandboxId, T>,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            entries: HashMap::new(),
        }
    }
}

impl<T> Ring<T> {
    fn put(&mut self, id: &SandboxId, value: T) {
        if self.entries.insert(id.clone(), value).is_some() {
            return;
        }
        let now = Instant::now();
        self.order.push_back((now, id.clone()));
        let old = |since: &Instant| now.duration_since(*since) > KEPT;
        while let Some((since, _)) = self.order.front()
            && (old(since) || self.order.len() > ENTRIES_MAX)
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

impl Recent {
    /// The first word about an end counts.
    pub(crate) fn ended(&self, id: &SandboxId, reason: EndReason, at: Timestamp) {
        let mut inner = self.lock();
        if !inner.ended.entries.contains_key(id) {
            let noted = false;
            inner.ended.put(id, End { reason, at, noted });
        }
    }

    pub(crate) fn end_of(&self, id: &SandboxId) -> Option<(EndReason, Timestamp)> {
        let inner = self.lock();
        inner.ended.entries.get(id).map(|end| (end.reason, end.at))
    }

    /// The store has it.
    pub(crate) fn end_noted(&self, id: &SandboxId) {
        if let Some(end) = self.lock().ended.entries.get_mut(id) {
            end.noted = true;
        }
    }

    pub(crate) fn is_end_noted(&self, id: &SandboxId) -> bool {
        let inner = self.lock();
        inner.ended.entries.get(id).is_some_and(|end| end.noted)
    }

    pub(crate) fn doom(&self, id: &SandboxId) {
        self.lock().doomed.put(id, ());
    }

    pub(crate) fn is_doomed(&self, id: &SandboxId) -> bool {
        self.lock().doomed.entries.contains_key(id)
    }

    pub(crate) fn made(&self, id: &SandboxId) {
        self.lock().made.put(id, ());
    }

    pub(crate) fn is_made(&self, id: &SandboxId) -> bool {
        self.lock().made.entries.contains_key(id)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_about_an_end_counts_and_stays_noted() {
        let (recent, id) = (Recent::default(), SandboxId::random());
        let (first, second) = (Timestamp::now(), Timestamp::now());
        recent.ended(&id, EndReason::Killed, first);
        assert!(!recent.is_end_noted(&id));
        recent.end_noted(&id);
        recent.ended(&id, EndReason::Expired, second);
        assert_eq!(recent.end_of(&id), Some((EndReason::Killed, first)));
        assert!(recent.is_end_noted(&id));
    }

    #[test]
    fn what_is_old_is_forgotten_when_something_comes() {
        let mut ring = Ring::default();
        let (old, new) = (SandboxId::random(), SandboxId::random());
        ring.put(&old, ());
        let long_ago = Instant::now().checked_sub(KEPT * 2);
        ring.order[0].0 = long_ago.expect("this machine runs for longer");
        ring.put(&new, ());
        assert!(!ring.entries.contains_key(&old));
        assert!(ring.entries.contains_key(&new));
        assert_eq!(ring.order.len(), 1);
    }
}
