//! The history in one SQLite file of its own, for one machine.
//!
//! Why SQLite and not segment files: what is read is a range of one sandbox out of many that were
//! written interleaved, and what is forgotten is a range of time; both want an index, and a write
//! that a crash cut off wants recovery. `sqlx` is here already. Why a file of its own: whoever
//! appends here never holds the lock that a create waits for, and deleting the file costs the past
//! and nothing else.
//!
//! Samples would be most of it (500 sandboxes give 8.6 million a day), so they are kept the way
//! that such stores do: each batch is appended as one row as it comes ([`tail`]), and every few
//! minutes the batches become one compressed row for each sandbox ([`codec`]), about 12 bytes a
//! sample.

mod activity;
mod build_logs;
mod codec;
mod events;
mod logs;
mod open;
mod samples;
mod tail;
mod trim;

use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use casemate_types::{SandboxId, TeamId, Timestamp};
use sqlx::SqlitePool;

use crate::{History, HistoryError, Retention, Trimmed};

use tail::Tail;

pub use open::OpenError;

/// Connections that only read; more readers than these wait for one of them.
pub const READERS_MAX: u32 = 2;
/// Rows of one statement.
const ROWS_AT_ONCE: usize = 100;

/// See the module.
pub struct SqliteHistory {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held by whoever writes, across its statements on purpose: the tail in memory and the rows
    /// on disk change together.
    writing: tokio::sync::Mutex<()>,
    tail: Mutex<Tail>,
}

impl SqliteHistory {
    /// Closes the file. What is under way ends first; calls that come later fail.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().expect("no holder of this lock panics")
    }

    /// The number under which a sandbox's rows are kept, given to it on its first. The caller
    /// holds `writing`.
    async fn number(
        &self,
        team: &TeamId,
        sandbox: &SandboxId,
        at: i64,
    ) -> Result<i64, HistoryError> {
        if let Some(number) = self.tail().number(sandbox) {
            return Ok(number);
        }
        // An update to what it is makes RETURNING answer for a row that was there already.
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO subjects (sandbox, team, last_at) VALUES ($1, $2, $3) \
             ON CONFLICT (sandbox) DO UPDATE SET last_at = max(last_at, excluded.last_at) \
             RETURNING number",
        )
        .bind(sandbox.as_str())
        .bind(team.as_str())
        .bind(at)
        .fetch_one(&self.writer)
        .await
        .map_err(failed("a sandbox's number"))?;
        self.tail().remember(sandbox, number);
        Ok(number)
    }

    /// The number of a team's sandbox, if anything of it was ever kept.
    async fn find(&self, team: &TeamId, sandbox: &SandboxId) -> Result<Option<i64>, HistoryError> {
        sqlx::query_scalar("SELECT number FROM subjects WHERE sandbox = $1 AND team = $2")
            .bind(sandbox.as_str())
            .bind(team.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("a sandbox's number"))
    }
}

#[async_trait]
impl History for SqliteHistory {
    async fn trim(&self, now: Timestamp, keep: &Retention) -> Result<Trimmed, HistoryError> {
        self.trim_all(now, keep).await
    }
}

/// A statement failed.
fn failed(what: &'static str) -> impl Fn(sqlx::Error) -> HistoryError {
    move |error| match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => corrupt(what, error),
        _ => HistoryError::Unavailable {
            what,
            source: Box::new(error),
        },
    }
}

fn corrupt(what: &'static str, source: impl Into<crate::error::Cause>) -> HistoryError {
    HistoryError::Corrupt {
        what,
        source: source.into(),
    }
}

/// As it is kept.
fn millis(time: Timestamp) -> i64 {
    time.as_millisecond()
}

/// As it was kept.
fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}
