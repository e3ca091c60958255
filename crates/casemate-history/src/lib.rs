//! What happened: samples, activity of teams, lifecycle events, logs of sandboxes and of builds.
//!
//! Owns the ports ([`Samples`], [`Activity`], [`Events`], [`Logs`], [`BuildLogs`], together
//! [`History`]), their rows, retention and their adapter over SQL. Everything that grows with time is
//! here and never in the store: losing a history loses the past, not a promise. It must not know HTTP, nor who may
//! read what beyond the team that each row carries.
//!
//! What holds for every port:
//! - Appending is cheap and in batches; a batch is kept whole or not at all.
//! - Reading asks with a team, and never finds another team's rows.
//! - Times are kept to the millisecond; what is finer is cut off.
//! - What was appended survives the death of the process, and need not survive a power loss.
//! - A NUL in a text becomes U+FFFD.
//! - [`History::trim`] forgets what is too old or too much, the oldest first.
//!
//! The ports are cut so that a column store or a log store fits behind each: append, and read a range
//! of one sandbox or one team.

pub mod activity;
pub mod build_logs;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
pub mod events;
pub mod logs;
pub mod retention;
pub mod samples;
pub mod sql;
#[cfg(feature = "testing")]
pub mod testing;

use async_trait::async_trait;
use casemate_types::Timestamp;

pub use activity::{Activity, TeamPoint};
pub use build_logs::{BuildLogEntry, BuildLogPage, BuildLogRange, BuildLogs};
pub use error::HistoryError;
pub use events::{EventKind, EventPage, Events, LifecycleEvent};
pub use logs::{LogDirection, LogEntry, LogLevel, LogLine, LogQuery, Logs};
pub use retention::{Retention, Trimmed};
pub use samples::{Range, Samples, UsageAt};
pub use sql::{
    ConnectError, CopyError, OpenError, Schema, SqlHistory, SqliteHistory, copy, migrate,
};

/// All ports over one history.
#[async_trait]
pub trait History: Samples + Activity + Events + Logs + BuildLogs + Send + Sync {
    /// Forgets what `keep` does not keep. Idempotent; called every minute.
    async fn trim(&self, now: Timestamp, keep: &Retention) -> Result<Trimmed, HistoryError>;
}
