//! How much is kept, and for how long: what happened, and what clients uploaded.

use anyhow::ensure;
use serde::{Deserialize, Serialize};

/// `[history]`: how much of the past is kept. What is older, or too much, is forgotten.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// Samples of sandboxes and activity of teams, days.
    pub metrics_days: u32,
    /// Lifecycle events of sandboxes, days.
    pub events_days: u32,
    /// Log lines of sandboxes, days.
    pub logs_days: u32,
    /// All of it together, MiB; beyond it the oldest goes, whatever its age. Too low forgets
    /// hours; too high fills the disk that the store is on.
    pub mib_max: u64,
}

impl Default for History {
    fn default() -> Self {
        Self {
            metrics_days: 7,
            events_days: 7,
            logs_days: 7,
            mib_max: 1024,
        }
    }
}

impl History {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (key, days) in [
            ("metrics_days", self.metrics_days),
            ("events_days", self.events_days),
            ("logs_days", self.logs_days),
        ] {
            ensure!(
                (1..=365).contains(&days),
                "history.{key} must be 1 to 365, got {days}"
            );
        }
        ensure!(
            self.mib_max >= 16,
            "history.mib_max must be at least 16, got {}",
            self.mib_max
        );
        Ok(())
    }
}

/// `[uploads]`: archives that clients upload for builds of templates.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Uploads {
    /// One archive, MiB; beyond it 413.
    pub upload_mib_max: u64,
    /// All of a team's together, MiB; beyond it 413. Too high fills the disk that the store is on.
    pub team_mib_max: u64,
    /// Days after which one goes that no build used. Too low uploads it again for the next build.
    pub days: u32,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            upload_mib_max: 4096,
            team_mib_max: 20 * 1024,
            days: 7,
        }
    }
}

impl Uploads {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=1024 * 1024).contains(&self.upload_mib_max),
            "uploads.upload_mib_max must be 1 to 1048576, got {}",
            self.upload_mib_max
        );
        ensure!(
            (self.upload_mib_max..=1 << 30).contains(&self.team_mib_max),
            "uploads.team_mib_max must be at least uploads.upload_mib_max ({}), got {}",
            self.upload_mib_max,
            self.team_mib_max
        );
        ensure!(
            (1..=365).contains(&self.days),
            "uploads.days must be 1 to 365, got {}",
            self.days
        );
        Ok(())
    }
}
