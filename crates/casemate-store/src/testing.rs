//! A store that lives as long as the test.

use std::ops::Deref;
use std::sync::Arc;

use tempfile::TempDir;

use crate::SqliteStore;

/// Dropping it removes the files; keep it while the store is in use.
pub struct TempStore {
    store: Arc<SqliteStore>,
    dir: TempDir,
}

impl TempStore {
    /// An empty store in a new directory.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn open() -> Self {
        let dir = tempfile::tempdir().expect("make a temporary directory");
        let path = dir.path().join("store.sqlite");
        let store = SqliteStore::open(&path).await.expect("open a new store");
        Self {
            store: Arc::new(store),
            dir,
        }
    }

    /// For what wants an `Arc<dyn Store>`.
    pub fn share(&self) -> Arc<SqliteStore> {
        Arc::clone(&self.store)
    }

    /// Where its file is.
    pub fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("store.sqlite")
    }
}

impl Deref for TempStore {
    type Target = SqliteStore;

    fn deref(&self) -> &SqliteStore {
        &self.store
    }
}
