//! Recent answers of the store to questions that every create asks.
//!
//! Only what was found is kept, so guessing fills nothing. A change in this process takes effect
//! at once; what another process changes (a block, a deletion, a tag) after [`KEPT_FOR`].

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

const KEPT_FOR: Duration = Duration::from_secs(5);
/// Answers kept at most; at it all are forgotten.
const ANSWERS_MAX: usize = 10_000;

pub(crate) struct Recall<K, V> {
    inner: Mutex<Inner<K, V>>,
}

struct Inner<K, V> {
    /// Raised by each removal, so that a look-up that began before it keeps nothing.
    epoch: u64,
    answers: HashMap<K, (Instant, Arc<V>)>,
}

impl<K, V> Default for Recall<K, V> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                epoch: 0,
                answers: HashMap::new(),
            }),
        }
    }
}

impl<K: Hash + Eq, V> Recall<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<Arc<V>> {
        let inner = self.lock();
        let (since, answer) = inner.answers.get(key)?;
        (since.elapsed() < KEPT_FOR).then(|| Arc::clone(answer))
    }

    /// To be read before the look-up whose answer is put.
    pub(crate) fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    pub(crate) fn put(&self, epoch: u64, key: K, answer: Arc<V>) {
        let mut inner = self.lock();
        if inner.epoch != epoch {
            return;
        }
        if inner.answers.len() >= ANSWERS_MAX {
            inner.answers.clear();
        }
        inner.answers.insert(key, (Instant::now(), answer));
    }

    pub(crate) fn remove(&self, key: &K) {
        let mut inner = self.lock();
        inner.epoch += 1;
        inner.answers.remove(key);
    }

    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.epoch += 1;
        inner.answers.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_from_before_a_removal_is_not_kept() {
        let recall = Recall::default();
        let before = recall.epoch();
        recall.put(before, "key", Arc::new(1));
        assert_eq!(recall.get(&"key").as_deref(), Some(&1));
        recall.remove(&"key");
        recall.put(before, "key", Arc::new(1));
        assert_eq!(recall.get(&"key"), None);
        recall.put(recall.epoch(), "key", Arc::new(2));
        recall.clear();
        assert_eq!(recall.get(&"key"), None);
    }
}
