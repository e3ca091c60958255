//! Writes the log back into the file, off the path of those who write.
//!
//! SQLite would do it inside whichever commit finds the log long, and that create would wait for
//! the disk for tens of milliseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::SqlitePool;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Writes between two checkpoints: some 10 MB of log.
const WRITES: u32 = 500;

/// Pages of log at which a commit writes it back itself after all: when checkpoints fail, or
/// writes come faster than they.
pub(super) const PAGES_MAX: &str = "8000";

/// Checkpoints in a row at most. While one goes on others write; the next has less to do, and
/// only one that ends at the end of the log lets it begin anew.
const ROUNDS: u32 = 3;

enum Written {
    Whole,
    Partly,
}

/// Ends its task when dropped; a checkpoint that is under way then ends by itself.
pub(super) struct Checkpoints {
    writes: AtomicU32,
    due: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Checkpoints {
    pub(super) fn start(pool: SqlitePool) -> Self {
        let due = Arc::new(Notify::new());
        let task = tokio::spawn({
            let due = Arc::clone(&due);
            async move {
                loop {
                    due.notified().await;
                    for _ in 0..ROUNDS {
                        // One that fails is made up for by the next, or at `PAGES_MAX`.
                        if !matches!(checkpoint(&pool).await, Ok(Written::Partly)) {
                            break;
                        }
                    }
                }
            }
        });
        Self {
            writes: AtomicU32::new(0),
            due,
            task,
        }
    }

    /// Counts a write.
    pub(super) fn wrote(&self) {
        let before = self.writes.fetch_add(1, Ordering::Relaxed);
        if before % WRITES == WRITES - 1 {
            self.due.notify_one();
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn checkpoint(pool: &SqlitePool) -> Result<Written, sqlx::Error> {
    // Whether it was locked out, pages in the log, pages written back.
    let (_, logged, written): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(PASSIVE)")
        .fetch_one(pool)
        .await?;
    Ok(if written < logged {
        Written::Partly
    } else {
        Written::Whole
    })
}
