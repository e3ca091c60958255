//! Log lines of builds of templates.
//!
//! They live as long as the row of their build, and whoever removes that row says so here. A caller
//! promises to append no more than [`LINES_MAX`] lines, [`BYTES_MAX`] bytes of messages and
//! [`MESSAGE_BYTES_MAX`] bytes a message for one build, and cuts what is more.

use async_trait::async_trait;
use casemate_types::{TeamId, Timestamp};

use crate::{HistoryError, LogDirection, LogLevel};

/// Lines of one build at most; the caller's promise.
pub const LINES_MAX: u64 = 100_000;
/// Bytes of all messages of one build at most; the caller's promise.
pub const BYTES_MAX: u64 = 32 << 20;
/// Bytes of one message at most; the caller's promise.
pub const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// A line of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildLogEntry {
    pub at: Timestamp,
    pub level: LogLevel,
    /// `base`, `finalize`, or the number of a step; `None` for what belongs to none.
    pub step: Option<String>,
    pub message: String,
}

/// Which lines of a build to read by their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildLogPage {
    pub team: TeamId,
    /// Its id, as it was appended.
    pub build: String,
    /// This level and those that matter more.
    pub level_min: LogLevel,
    /// Lines of these levels to pass over.
    pub offset: u64,
    pub rows_max: u32,
}

/// Which lines of a build to read by their time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildLogRange {
    pub team: TeamId,
    /// Its id, as it was appended.
    pub build: String,
    /// Forward those of this moment and later, backward those of this moment and before.
    pub cursor: Timestamp,
    pub direction: LogDirection,
    /// This level and those that matter more.
    pub level_min: LogLevel,
    pub rows_max: u32,
}

#[async_trait]
pub trait BuildLogs {
    /// Appends lines of one build behind those that it has.
    async fn build_logs_append(
        &self,
        team: &TeamId,
        build: &str,
        lines: &[BuildLogEntry],
    ) -> Result<(), HistoryError>;

    /// In the order in which they were appended. What was read once stays where it was, whatever is
    /// appended later. Without a level to leave out, a page costs the same wherever it begins.
    async fn build_logs_page(
        &self,
        page: &BuildLogPage,
    ) -> Result<Vec<BuildLogEntry>, HistoryError>;

    /// In order of time, or backward in its exact reverse; those of one moment in the order in which
    /// they were appended.
    async fn build_logs_range(
        &self,
        range: &BuildLogRange,
    ) -> Result<Vec<BuildLogEntry>, HistoryError>;

    /// Builds that have lines, in order of their ids and after this one; for whoever looks for those
    /// that are gone.
    async fn build_logs_list(
        &self,
        after: Option<&str>,
        rows_max: u32,
    ) -> Result<Vec<String>, HistoryError>;

    /// Removes all lines of these builds, whoever's they are; those that have none are no error.
    async fn build_logs_remove(&self, builds: &[String]) -> Result<(), HistoryError>;
}
