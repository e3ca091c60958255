//! What happened to sandboxes a short while ago, where two tasks may pass each other.
//!
//! - *ended*: the node reported an end; a create whose row comes later learns of it.
//! - *doomed*: a create failed without a known result; if the sandbox shows up, it is ended at
//!   once instead of after the orphans' grace.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use casemate_types::{EndReason, SandboxId, Timestamp};

/// Entries of each kind; beyond it the oldest are forgotten. A create is in flight for a minute
/// at most, so this is more than the ends of a minute.
const ENTRIES_MAX: usize = 16_384;

#[derive(Default)]
pub(crate) struct Recent {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    ended: Ring<(EndReason, Timestamp)>,
    doomed: Ring<()>,
}

struct Ring<T> {
    order: VecDeque<SandboxId>,
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
        self.order.push_back(id.clone());
        if self.order.len() > ENTRIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

impl Recent {
    pub(crate) fn ended(&self, id: &SandboxId, reason: EndReason, at: Timestamp) {
        self.lock().ended.put(id, (reason, at));
    }

    pub(crate) fn end_of(&self, id: &SandboxId) -> Option<(EndReason, Timestamp)> {
        self.lock().ended.entries.get(id).copied()
    }

    pub(crate) fn doom(&self, id: &SandboxId) {
        self.lock().doomed.put(id, ());
    }

    pub(crate) fn is_doomed(&self, id: &SandboxId) -> bool {
        self.lock().doomed.entries.contains_key(id)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("no code panics while it holds this lock")
    }
}
