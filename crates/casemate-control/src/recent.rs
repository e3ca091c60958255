//! What happened to sandboxes a short while ago, where two tasks may pass each other.
//!
//! - *ended*: a node reported an end; a create whose row comes later learns of it. What ended at another
//!   node was a copy.
//! - *doomed*: a create failed without a known result; if the sandbox shows up, it is ended at
//!   once instead of after the orphans' grace.
//! - *made*: a create of this server wrote its row; where several share the store, whoever noted the
//!   end may have looked before that.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
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
    /// With the node.
    ended: Ring<(SandboxId, String), End>,
    doomed: Ring<SandboxId, ()>,
    made: Ring<SandboxId, ()>,
}

#[derive(Clone, Copy)]
struct End {
    reason: EndReason,
    at: Timestamp,
    noted: bool,
}

struct Ring<K, T> {
    order: VecDeque<(Instant, K)>,
    entries: HashMap<K, T>,
}

impl<K, T> Default for Ring<K, T> {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            entries: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, T> Ring<K, T> {
    fn put(&mut self, id: &K, value: T) {
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
    /// The first word about an end counts, unless it was of a copy that was there before: what is not
    /// noted gives way to what came later.
    pub(crate) fn ended(&self, id: &SandboxId, node: &str, reason: EndReason, at: Timestamp) {
        let (key, mut inner) = (key(id, node), self.lock());
        let known = inner.ended.entries.get(&key);
        if known.is_none_or(|known| !known.noted && known.at < at) {
            let noted = false;
            inner.ended.put(&key, End { reason, at, noted });
        }
    }

    pub(crate) fn end_of(&self, id: &SandboxId, node: &str) -> Option<(EndReason, Timestamp)> {
        let inner = self.lock();
        let end = inner.ended.entries.get(&key(id, node));
        end.map(|end| (end.reason, end.at))
    }

    /// The store has it.
    pub(crate) fn end_noted(&self, id: &SandboxId, node: &str) {
        if let Some(end) = self.lock().ended.entries.get_mut(&key(id, node)) {
            end.noted = true;
        }
    }

    pub(crate) fn is_end_noted(&self, id: &SandboxId, node: &str) -> bool {
        let inner = self.lock();
        let end = inner.ended.entries.get(&key(id, node));
        end.is_some_and(|end| end.noted)
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

fn key(id: &SandboxId, node: &str) -> (SandboxId, String) {
    (id.clone(), node.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_about_an_end_counts_and_stays_noted() {
        let (recent, id) = (Recent::default(), SandboxId::random());
        let (first, second) = (Timestamp::now(), Timestamp::now());
        recent.ended(&id, "n1", EndReason::Killed, first);
        assert!(!recent.is_end_noted(&id, "n1"));
        recent.end_noted(&id, "n1");
        recent.ended(&id, "n1", EndReason::Expired, second);
        assert_eq!(recent.end_of(&id, "n1"), Some((EndReason::Killed, first)));
        assert!(recent.is_end_noted(&id, "n1"));
        assert_eq!(recent.end_of(&id, "n2"), None);
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
