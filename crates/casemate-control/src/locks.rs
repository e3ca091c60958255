//! Changes of one sandbox, one after the other.
//!
//! A fixed number of locks, chosen by the id's hash: two sandboxes may share one, which costs
//! waiting and nothing else. They are held across calls of node and store on purpose.

use std::hash::{DefaultHasher, Hash, Hasher};

use casemate_types::SandboxId;
use tokio::sync::{Mutex, MutexGuard};

const LOCKS: usize = 256;

pub(crate) struct SandboxLocks(Vec<Mutex<()>>);

impl Default for SandboxLocks {
    fn default() -> Self {
        Self((0..LOCKS).map(|_| Mutex::new(())).collect())
    }
}

impl SandboxLocks {
    pub(crate) async fn lock(&self, sandbox: &SandboxId) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        sandbox.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or_default();
        self.0[at].lock().await
    }
}
