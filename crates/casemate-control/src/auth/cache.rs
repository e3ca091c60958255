//! Recent answers of the key look-up.
//!
//! Only keys that were found are kept, so guessing keys fills nothing. A deletion in this process
//! takes effect at once; what another process changes (a block, a deletion) after [`KEPT_FOR`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use casemate_store::{KeyHash, Team};

const KEPT_FOR: Duration = Duration::from_secs(5);
/// Keys kept at most; at it the cache starts anew.
const KEYS_MAX: usize = 10_000;

#[derive(Default)]
pub(crate) struct AuthCache {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Raised by each removal, so that a look-up that began before it keeps nothing.
    epoch: u64,
    teams: HashMap<KeyHash, (Instant, Arc<Team>)>,
}

impl AuthCache {
    pub(crate) fn get(&self, hash: &KeyHash) -> Option<Arc<Team>> {
        let inner = self.lock();
        let (since, team) = inner.teams.get(hash)?;
        (since.elapsed() < KEPT_FOR).then(|| Arc::clone(team))
    }

    /// To be read before the look-up whose answer is put.
    pub(crate) fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    pub(crate) fn put(&self, epoch: u64, hash: &KeyHash, team: Arc<Team>) {
        let mut inner = self.lock();
        if inner.epoch != epoch {
            return;
        }
        if inner.teams.len() >= KEYS_MAX {
            inner.teams.clear();
        }
        inner.teams.insert(hash.clone(), (Instant::now(), team));
    }

    pub(crate) fn remove(&self, hash: &KeyHash) {
        let mut inner = self.lock();
        inner.epoch += 1;
        inner.teams.remove(hash);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("no code panics while it holds this lock")
    }
}
