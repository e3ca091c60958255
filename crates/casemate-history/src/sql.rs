//! The history over SQL: in one SQLite file for one machine, in a PostgreSQL database that several
//! servers write and read.
//!
//! Each port is written once ([`casemate_sql`]). What belongs to one database alone is how it is
//! opened (`open.rs`, `connect.rs`), its migrations, and how it is measured (`sizes.rs`).
//!
//! Why SQL and not segment files: what is read is a range of one sandbox out of many that were
//! written interleaved, and what is forgotten is a range of time; both want an index, and a write
//! that a crash cut off wants recovery. Why apart from the store, in a file or a schema of its own:
//! whoever appends here never holds what a create waits for, and deleting it costs the past and
//! nothing else.
//!
//! Samples would be most of it (500 sandboxes give 8.6 million a day), so they are kept the way
//! that such stores do: each batch is appended as a few rows as it comes (`young.rs`), and every few
//! minutes these become one compressed row for each sandbox (`codec.rs`), about 12 bytes a sample.
//!
//! A batch of whatever kind is one statement, whose rows are one argument ([`Value::rows`]).
//!
//! [`Value::rows`]: casemate_sql::Value::rows

mod activity;
mod build_logs;
mod codec;
mod connect;
mod copy;
mod events;
mod logs;
mod open;
mod samples;
mod sizes;
mod subjects;
mod trim;
mod young;

use std::borrow::Cow;
use std::sync::Mutex;

use async_trait::async_trait;
use casemate_sql::{Error, Pool};
use casemate_types::Timestamp;

use crate::{History, HistoryError, Retention, Trimmed};

use subjects::Known;
use young::Due;

pub use connect::{CONNECTIONS_MAX, ConnectError, SCHEMA, Schema, migrate};
pub use copy::{CopyError, copy};
pub use open::OpenError;

/// Connections to SQLite that only read; more readers than these wait for one of them.
pub const READERS_MAX: u32 = 2;

/// See the module. [`SqlHistory::open`] opens a file, [`SqlHistory::connect`] connects to a server.
pub struct SqlHistory {
    writer: Pool,
    /// PostgreSQL: as `writer`.
    readers: Pool,
    known: Mutex<Known>,
    due: Mutex<Due>,
}

/// A history in a file.
pub type SqliteHistory = SqlHistory;

impl SqlHistory {
    fn new(writer: Pool, readers: Pool) -> Self {
        Self {
            writer,
            readers,
            known: Mutex::default(),
            due: Mutex::default(),
        }
    }

    /// Closes all connections. What is under way ends first; calls that come later fail.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl History for SqlHistory {
    async fn trim(&self, now: Timestamp, keep: &Retention) -> Result<Trimmed, HistoryError> {
        self.trim_all(now, keep).await
    }
}

/// A statement failed.
fn failed(what: &'static str) -> impl Fn(Error) -> HistoryError + Copy {
    move |error| match error {
        Error::Undecodable(_) => corrupt(what, error),
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

/// A text that every database can keep: PostgreSQL has no NUL, and one line that has it must not cost
/// a batch.
fn text(of: &str) -> Cow<'_, str> {
    match of.contains('\0') {
        true => Cow::Owned(of.replace('\0', "\u{fffd}")),
        false => Cow::Borrowed(of),
    }
}

/// Bytes as [`casemate_sql::Value::rows`] has them.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|half| char::from(DIGITS[usize::from(half)]));
    bytes.iter().flat_map(digits).collect()
}
