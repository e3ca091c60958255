//! Cancelling all builds of a team.

use casemate_store::StoreError;
use casemate_types::{BuildFailure, TeamId};

use crate::Control;

/// What became of an order to cancel everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CancelCount {
    pub cancelled: u32,
    pub failed: u32,
}

/// What a build fails of that somebody ended.
pub(crate) fn cancelled() -> BuildFailure {
    BuildFailure {
        message: "build was cancelled".into(),
        step: None,
    }
}

impl Control {
    /// Cancels every build of a team that waits or is under way.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn cancel_team_builds(&self, team: &TeamId) -> Result<CancelCount, StoreError> {
        let open = self.store.build_list_open(team).await?;
        let failure = BuildFailure {
            message: "cancelled by admin".into(),
            step: None,
        };
        self.cancel_builds(&open, failure).await;
        let left = self.store.build_list_open(team).await?;
        let failed = open.iter().filter(|build| left.contains(build)).count();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(CancelCount {
            cancelled: count(open.len() - failed),
            failed: count(failed),
        })
    }
}
