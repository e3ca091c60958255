//! How many sandboxes a team ran, and how many it started.

use std::time::Duration;

use async_trait::async_trait;
use casemate_types::{TeamId, Timestamp};

use crate::HistoryError;
use crate::samples::Range;

/// What a team did in the span that ends at `at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamPoint {
    pub team: TeamId,
    pub at: Timestamp,
    pub span: Duration,
    /// The most sandboxes at once.
    pub concurrent: u32,
    /// Sandboxes that came to be.
    pub started: u32,
}

impl TeamPoint {
    /// Starts a second.
    pub fn start_rate(&self) -> f64 {
        f64::from(self.started) / self.span.as_secs_f64().max(0.001)
    }
}

#[async_trait]
pub trait Activity {
    /// Appends points of any teams. A second one of a team at the same moment replaces the first.
    async fn activity_append(&self, points: &[TeamPoint]) -> Result<(), HistoryError>;

    /// A team's points in the range, in order of time, one for each `step` at most: its time is the
    /// last one's, its span and its starts are sums, `concurrent` the largest.
    async fn activity_read(
        &self,
        team: &TeamId,
        range: Range,
        step: Duration,
    ) -> Result<Vec<TeamPoint>, HistoryError>;
}

/// One point for each step that has any. `points` are one team's, in order of time.
pub fn aggregate(points: impl IntoIterator<Item = TeamPoint>, step: Duration) -> Vec<TeamPoint> {
    let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    let bucket = |point: &TeamPoint| point.at.as_millisecond().div_euclid(step_ms);
    let mut merged: Vec<TeamPoint> = Vec::new();
    for point in points {
        match merged.last_mut() {
            Some(last) if bucket(last) == bucket(&point) => {
                last.at = point.at;
                last.span += point.span;
                last.concurrent = last.concurrent.max(point.concurrent);
                last.started = last.started.saturating_add(point.started);
            }
            _ => merged.push(point),
        }
    }
    merged
}
