//! How much of the past is kept.

use std::time::Duration;

/// What [`crate::History::trim`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Samples of sandboxes and the activity of teams.
    pub metrics: Duration,
    pub events: Duration,
    /// Of sandboxes; those of builds live as long as their build.
    pub logs: Duration,
    /// Of everything together; beyond it the oldest tenth goes, whatever its age, until it fits. Logs
    /// of builds go last, those of whichever team's take most first, but do not keep more than half of
    /// it from the rest.
    pub bytes_max: u64,
}

impl Retention {
    const DAY: Duration = Duration::from_secs(24 * 3600);
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            metrics: Self::DAY * 7,
            events: Self::DAY * 7,
            logs: Self::DAY * 7,
            bytes_max: 1 << 30,
        }
    }
}

/// What a trim did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Rows that are gone.
    pub rows: u64,
    /// What the history takes now.
    pub bytes: u64,
    /// Something went before its age because there was too much.
    pub cut: bool,
}
