//! Log lines of sandboxes.

use std::collections::BTreeMap;

use async_trait::async_trait;
use casemate_types::{SandboxId, TeamId, Timestamp};

use crate::HistoryError;

/// How much a line matters; in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// What was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub at: Timestamp,
    pub level: LogLevel,
    pub message: String,
    pub fields: BTreeMap<String, String>,
}

/// An entry, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub sandbox: SandboxId,
    pub team: TeamId,
    pub entry: LogEntry,
}

/// From where a limited read keeps entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogDirection {
    /// Oldest first.
    Forward,
    /// Newest first.
    Backward,
}

/// Which entries of one sandbox to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    pub team: TeamId,
    pub sandbox: SandboxId,
    /// From this moment on …
    pub from: Timestamp,
    /// … until before this one.
    pub before: Timestamp,
    pub direction: LogDirection,
    /// This level and those that matter more.
    pub level_min: LogLevel,
    /// Somewhere in the message, in exactly these letters.
    pub search: Option<String>,
    pub rows_max: u32,
}

#[async_trait]
pub trait Logs {
    /// Appends lines of any sandboxes; those of one moment stay in this order.
    async fn logs_append(&self, lines: &[LogLine]) -> Result<(), HistoryError>;

    async fn logs_read(&self, query: &LogQuery) -> Result<Vec<LogEntry>, HistoryError>;
}
