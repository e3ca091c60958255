//! Samples: what sandboxes used of their limits.

use std::time::Duration;

use async_trait::async_trait;
use casemate_types::{Sample, SandboxId, TeamId, Timestamp, Usage};

use crate::HistoryError;

/// A stretch of time, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub from: Timestamp,
    pub to: Timestamp,
}

/// Figures at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UsageAt {
    pub at: Timestamp,
    pub usage: Usage,
}

#[async_trait]
pub trait Samples {
    /// Appends samples of any sandboxes. Two of one sandbox in the same millisecond are one. CPU is
    /// kept to a hundredth of a percent.
    async fn samples_append(&self, samples: &[Sample]) -> Result<(), HistoryError>;

    /// A sandbox's samples in the range, in order of time, one for each `step` at most: its time is
    /// the last one's, CPU the mean, all else the largest.
    async fn samples_read(
        &self,
        team: &TeamId,
        sandbox: &SandboxId,
        range: Range,
        step: Duration,
    ) -> Result<Vec<UsageAt>, HistoryError>;

    /// From a sandbox's first sample to its last; `None` when it has none.
    async fn samples_range(
        &self,
        team: &TeamId,
        sandbox: &SandboxId,
    ) -> Result<Option<Range>, HistoryError>;

    /// The last sample of each of these sandboxes that has one.
    async fn samples_latest(
        &self,
        team: &TeamId,
        sandboxes: &[SandboxId],
    ) -> Result<Vec<Sample>, HistoryError>;
}

/// One point for each step that has any. `samples` are in order of time.
pub fn aggregate(samples: impl IntoIterator<Item = UsageAt>, step: Duration) -> Vec<UsageAt> {
    let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    let mut points: Vec<UsageAt> = Vec::new();
    let mut bucket = None;
    let mut count = 0.0;
    for UsageAt { at, usage } in samples {
        let here = Some(at.as_millisecond().div_euclid(step_ms));
        match points.last_mut() {
            Some(point) if bucket == here => {
                count += 1.0;
                let mean = &mut point.usage.cpu_used_percent;
                *mean += (usage.cpu_used_percent - *mean) / count;
                point.at = at;
                point.usage = Usage {
                    cpu_used_percent: *mean,
                    vcpus: point.usage.vcpus.max(usage.vcpus),
                    memory_used_bytes: point.usage.memory_used_bytes.max(usage.memory_used_bytes),
                    memory_total_bytes: point
                        .usage
                        .memory_total_bytes
                        .max(usage.memory_total_bytes),
                    memory_cache_bytes: point
                        .usage
                        .memory_cache_bytes
                        .max(usage.memory_cache_bytes),
                    disk_used_bytes: point.usage.disk_used_bytes.max(usage.disk_used_bytes),
                    disk_total_bytes: point.usage.disk_total_bytes.max(usage.disk_total_bytes),
                };
            }
            _ => {
                (bucket, count) = (here, 1.0);
                points.push(UsageAt { at, usage });
            }
        }
    }
    points
}
