//! A history that lives as long as the test.

use std::ops::Deref;
use std::sync::Arc;

use tempfile::TempDir;

use crate::SqliteHistory;

/// Dropping it removes the files; keep it while the history is in use.
pub struct TempHistory {
    history: Arc<SqliteHistory>,
    _dir: TempDir,
}

impl TempHistory {
    /// An empty history in a new directory.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn open() -> Self {
        let dir = tempfile::tempdir().expect("make a temporary directory");
        let path = dir.path().join("history.sqlite");
        let history = SqliteHistory::open(&path).await.expect("open a history");
        Self {
            history: Arc::new(history),
            _dir: dir,
        }
    }

    /// For what wants an `Arc<dyn History>`.
    pub fn share(&self) -> Arc<SqliteHistory> {
        Arc::clone(&self.history)
    }
}

impl Deref for TempHistory {
    type Target = SqliteHistory;

    fn deref(&self) -> &SqliteHistory {
        &self.history
    }
}
