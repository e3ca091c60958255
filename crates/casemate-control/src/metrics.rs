//! What a team reads of its sandboxes' and its own figures.

use std::time::Duration;

use casemate_history::{HistoryError, Range, TeamPoint, UsageAt};
use casemate_types::{Sample, SandboxId, TeamId, Timestamp};

use crate::Control;
use crate::auth::TeamCaller;

/// Sandboxes of one question about their latest figures.
pub const LATEST_SANDBOXES_MAX: usize = 100;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// From when to when, as it was asked; a missing end is as far as there is anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AskedRange {
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
}

/// What of a team's activity is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TeamMetric {
    ConcurrentSandboxes,
    SandboxStartRate,
}

#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    #[error("Invalid time range for metrics")]
    Range,
    #[error("Too many sandboxes requested, maximum is {LATEST_SANDBOXES_MAX}")]
    TooMany,
    #[error("You don't have access to the metrics of this team")]
    NotYours,
    #[error("read the history")]
    History(#[from] HistoryError),
}

impl Control {
    /// A sandbox's samples; none of one that nobody knows or that is another team's.
    pub async fn sandbox_metrics(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
        asked: AskedRange,
    ) -> Result<Vec<UsageAt>, MetricsError> {
        asked.check()?;
        let team = &caller.team.id;
        let Some(kept) = self.history.samples_range(team, id).await? else {
            return Ok(Vec::new());
        };
        let range = Range {
            from: asked.start.unwrap_or(kept.from),
            to: asked.end.unwrap_or(kept.to),
        };
        let step = step(&range);
        Ok(self.history.samples_read(team, id, range, step).await?)
    }

    /// The last sample of each that has one.
    pub async fn sandboxes_metrics(
        &self,
        caller: &TeamCaller,
        ids: &[SandboxId],
    ) -> Result<Vec<Sample>, MetricsError> {
        if ids.len() > LATEST_SANDBOXES_MAX {
            return Err(MetricsError::TooMany);
        }
        let team = &caller.team.id;
        Ok(self.history.samples_latest(team, ids).await?)
    }

    /// The caller's team's activity; of the last seven days when no start is named.
    pub async fn team_metrics(
        &self,
        caller: &TeamCaller,
        team: &TeamId,
        asked: AskedRange,
    ) -> Result<Vec<TeamPoint>, MetricsError> {
        let range = team_range(caller, team, asked)?;
        let step = step(&range);
        Ok(self.history.activity_read(team, range, step).await?)
    }

    /// The highest value and when it was; 0 at the end of the range when there was nothing.
    pub async fn team_metrics_max(
        &self,
        caller: &TeamCaller,
        team: &TeamId,
        asked: AskedRange,
        metric: TeamMetric,
    ) -> Result<(Timestamp, f64), MetricsError> {
        let range = team_range(caller, team, asked)?;
        let value = |point: &TeamPoint| match metric {
            TeamMetric::ConcurrentSandboxes => f64::from(point.concurrent),
            TeamMetric::SandboxStartRate => point.start_rate(),
        };
        let each = Duration::from_millis(1);
        let points = self.history.activity_read(team, range, each).await?;
        let highest = points
            .iter()
            .map(|point| (point.at, value(point)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        Ok(highest.unwrap_or((range.to, 0.0)))
    }
}

impl AskedRange {
    fn check(&self) -> Result<(), MetricsError> {
        match (self.start, self.end) {
            (Some(start), Some(end)) if start > end => Err(MetricsError::Range),
            _ => Ok(()),
        }
    }
}

fn team_range(
    caller: &TeamCaller,
    team: &TeamId,
    asked: AskedRange,
) -> Result<Range, MetricsError> {
    if caller.team.id != *team {
        return Err(MetricsError::NotYours);
    }
    let to = asked.end.unwrap_or_else(Timestamp::now);
    let week_before = || to.checked_sub(DAY * 7).unwrap_or(Timestamp::UNIX_EPOCH);
    let from = asked.start.unwrap_or_else(week_before);
    if from > to {
        return Err(MetricsError::Range);
    }
    Ok(Range { from, to })
}

/// How far apart points are, by how much is asked for (`api.md` 3.7).
fn step(range: &Range) -> Duration {
    let length = range.to.duration_since(range.from).unsigned_abs();
    let seconds = match length {
        length if length < HOUR => 5,
        length if length < HOUR * 6 => 30,
        length if length < HOUR * 12 => 60,
        length if length < DAY => 120,
        length if length < DAY * 7 => 300,
        _ => 900,
    };
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_ranges_have_longer_steps() {
        for (seconds, expected) in [
            (0, 5),
            (3599, 5),
            (3600, 30),
            (6 * 3600, 60),
            (12 * 3600, 120),
            (24 * 3600 - 1, 120),
            (24 * 3600, 300),
            (7 * 24 * 3600, 900),
        ] {
            let range = Range {
                from: Timestamp::UNIX_EPOCH,
                to: Timestamp::from_second(seconds).unwrap(),
            };
            assert_eq!(step(&range).as_secs(), expected, "{seconds}");
        }
    }
}
