//! Connecting to a sandbox: its life is extended, never cut.

use std::time::Duration;

use casemate_types::SandboxId;

use super::{ChangeError, SandboxView};
use crate::Control;
use crate::auth::TeamCaller;

impl Control {
    /// A running sandbox with a deadline of at least now + `timeout` (cut at the longest life).
    pub async fn connect(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
        timeout: Duration,
    ) -> Result<SandboxView, ChangeError> {
        if timeout > caller.limits.life_max() {
            return Err(ChangeError::TimeoutTooLong {
                hours: caller.limits.life_hours_max,
            });
        }
        let _one = self.locks.lock(id).await;
        let (row, ends_at) = self.running_row(caller, id).await?;
        let ends_at = self.extend(caller, &row, ends_at, timeout).await?;
        Ok(self.view_until(row, ends_at))
    }
}
