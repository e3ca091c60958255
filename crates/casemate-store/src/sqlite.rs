//! The store in one SQLite file, for one machine.
//!
//! Write-ahead log, and three ways in: `fast` for what must survive the process only, `durable`
//! for what must survive a power loss (its commits sync the log), `readers` beside both. SQLite
//! has one writer at a time; the two wait for each other inside SQLite for up to
//! [`BUSY_WAIT`]. Statements keep to what PostgreSQL also understands (`$1`, `ON CONFLICT`,
//! `RETURNING`); where they cannot, as with JSON functions, a comment says so.

mod build_cache;
mod build_requests;
mod build_rows;
mod builds;
mod built_bytes;
mod checkpoint;
mod idempotency;
mod kept_files;
mod keys;
mod open;
mod sandboxes;
mod settings;
mod snapshots;
mod tags;
mod teams;
mod template_pages;
mod templates;
#[cfg(test)]
mod tests;
mod trim;
mod users;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqlitePool;
use sqlx::error::{DatabaseError, ErrorKind};

use crate::{Store, StoreError};

use checkpoint::Checkpoints;

pub use open::OpenError;

/// How long a statement waits for the writer before it fails with [`StoreError::Busy`].
pub const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Connections that only read; more readers than these wait for one of them. Each costs a thread
/// and a page cache.
pub const READERS_MAX: u32 = 3;

/// See the module.
pub struct SqliteStore {
    fast: SqlitePool,
    durable: SqlitePool,
    readers: SqlitePool,
    checkpoints: Checkpoints,
}

impl SqliteStore {
    /// Writes the log back into the file and closes it. What is under way ends first; calls
    /// that come later fail.
    pub async fn close(&self) {
        self.readers.close().await;
        self.fast.close().await;
        self.durable.close().await;
    }

    /// For one write that need not outlive a power loss.
    fn fast(&self) -> &SqlitePool {
        self.checkpoints.wrote();
        &self.fast
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM teams LIMIT 1")
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("table", "teams", error))?;
        Ok(())
    }
}

/// A statement about the row `what` `id` failed.
fn failed(what: &'static str, id: impl ToString, error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(cause) => match cause.kind() {
            ErrorKind::UniqueViolation => StoreError::Exists {
                what,
                id: id.to_string(),
            },
            ErrorKind::ForeignKeyViolation => StoreError::Dangling {
                what,
                id: id.to_string(),
            },
            _ if is_code(cause.as_ref(), &[BUSY, LOCKED]) => StoreError::Busy(Box::new(error)),
            _ if is_code(cause.as_ref(), &[FULL]) => StoreError::DiskFull(Box::new(error)),
            _ => StoreError::Unavailable(Box::new(error)),
        },
        sqlx::Error::PoolTimedOut => StoreError::Busy(Box::new(error)),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Corrupt {
            what,
            id: id.to_string(),
            source: Box::new(error),
        },
        _ => StoreError::Unavailable(Box::new(error)),
    }
}

const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const FULL: i32 = 13;

/// One of these codes of SQLite, whatever its extension in the upper bits.
fn is_code(error: &dyn DatabaseError, codes: &[i32]) -> bool {
    let code = error.code().and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| codes.contains(&(code & 0xff)))
}
