//! The ports over SQL: in one SQLite file for one machine, in a PostgreSQL database for several.
//!
//! Each port is written once ([`casemate_sql`]). What belongs to one database alone is how it is
//! opened (`open.rs`, `connect.rs`), its log's care (`checkpoint.rs`), and its migrations.
//!
//! SQLite: write-ahead log, and three ways in: `fast` for what must survive the process only,
//! `durable` for what must survive a power loss (its commits sync the log), `readers` beside both.
//! It has one writer at a time; the two wait for each other inside SQLite for up to [`BUSY_WAIT`].
//!
//! PostgreSQL: one pool, whose commits wait for the server's disk, and a small one for notes, whose
//! commits do not. Where a port needs more than one statement to say what it means, a serializable
//! transaction keeps other servers from coming between.

mod artifacts;
mod build_cache;
mod build_requests;
mod build_rows;
mod builds;
mod built_bytes;
mod checkpoint;
mod connect;
mod copy;
mod idempotency;
mod join_tokens;
mod kept_files;
mod keys;
mod leases;
mod nodes;
mod open;
mod sandboxes;
mod servers;
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
use casemate_sql::{Error, Pool, Sql, query_scalar};

use crate::{Store, StoreError};

use checkpoint::Checkpoints;

pub use connect::{ConnectError, Schema, migrate};
pub use copy::{CopyError, TABLES, copy};
pub use open::OpenError;

/// How long a statement waits for SQLite's writer before it fails with [`StoreError::Busy`].
pub const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Connections to SQLite that only read; more readers than these wait for one of them. Each costs a
/// thread and a page cache.
pub const READERS_MAX: u32 = 3;
/// How long readiness waits for the database.
pub const PING_WAIT: Duration = Duration::from_secs(2);

/// See the module. [`SqlStore::open`] opens a file, [`SqlStore::connect`] connects to a server.
pub struct SqlStore {
    /// For what need not outlive a power loss. PostgreSQL: as `durable`.
    fast: Pool,
    durable: Pool,
    readers: Pool,
    /// For what may be lost with the server. SQLite: as `fast`.
    notes: Pool,
    /// SQLite's.
    checkpoints: Option<Checkpoints>,
}

/// A store in a file.
pub type SqliteStore = SqlStore;

impl SqlStore {
    /// Closes all connections; SQLite writes the log back into the file. What is under way ends
    /// first; calls that come later fail.
    pub async fn close(&self) {
        self.readers.close().await;
        self.fast.close().await;
        self.durable.close().await;
        self.notes.close().await;
    }

    /// For one write that need not outlive a power loss.
    fn fast(&self) -> &Pool {
        self.wrote();
        &self.fast
    }

    /// For one write of which the last ones may be lost with the server.
    fn notes(&self) -> &Pool {
        self.wrote();
        &self.notes
    }

    fn wrote(&self) {
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.wrote();
        }
    }
}

/// 0: it takes no writes. A file that does not says so where it is written to.
const PING: Sql = Sql {
    sqlite: "SELECT 1 + 0 * COUNT(*) FROM (SELECT 1 FROM teams LIMIT 1)",
    postgres: "SELECT CASE current_setting('transaction_read_only') WHEN 'on' THEN 0 ELSE 1 END \
               + 0 * COUNT(*) FROM (SELECT 1 FROM teams LIMIT 1) AS one",
};

#[async_trait]
impl Store for SqlStore {
    async fn ping(&self) -> Result<(), StoreError> {
        let asked = query_scalar(PING).fetch_one(&self.readers);
        let answer = tokio::time::timeout(PING_WAIT, asked).await;
        let takes_writes: i64 = answer
            .unwrap_or(Err(Error::TimedOut(PING_WAIT)))
            .map_err(|error| failed("table", "teams", error))?;
        match takes_writes {
            0 => Err(StoreError::Unavailable(
                "the database takes no writes: it is a standby, or read-only".into(),
            )),
            _ => Ok(()),
        }
    }
}

/// A statement about the row `what` `id` failed.
fn failed(what: &'static str, id: impl ToString, error: Error) -> StoreError {
    match error {
        Error::Unique(_) => StoreError::Exists {
            what,
            id: id.to_string(),
        },
        Error::ForeignKey(_) => StoreError::Dangling {
            what,
            id: id.to_string(),
        },
        Error::Refused(_) => StoreError::Refused {
            what,
            id: id.to_string(),
            source: error.into(),
        },
        Error::Undecodable(_) => StoreError::Corrupt {
            what,
            id: id.to_string(),
            source: error.into(),
        },
        Error::Conflict(_) | Error::Busy(_) | Error::NoConnection => StoreError::Busy(error.into()),
        Error::DiskFull(_) => StoreError::DiskFull(error.into()),
        Error::Unavailable(_) | Error::TimedOut(_) => StoreError::Unavailable(error.into()),
    }
}
