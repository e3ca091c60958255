//! One sandbox.

use casemate_store::{Sandbox, StoreError};
use casemate_types::{SandboxId, Timestamp, steady};

use super::{SandboxView, alive_until};
use crate::Control;
use crate::auth::TeamCaller;

impl Control {
    /// A running sandbox of the caller's team.
    pub async fn get_sandbox(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
    ) -> Result<Option<SandboxView>, StoreError> {
        let row = self.own_row(caller, id).await?;
        Ok(row.and_then(|row| self.view(row, steady::now())))
    }

    /// Dead or alive, but the caller's.
    pub(crate) async fn own_row(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
    ) -> Result<Option<Sandbox>, StoreError> {
        let row = self.store.sandbox_by_id(id).await?;
        Ok(row.filter(|row| row.team == caller.team.id))
    }

    /// `None` when it is not alive.
    pub(crate) fn view(&self, sandbox: Sandbox, now: Timestamp) -> Option<SandboxView> {
        let ends_at = alive_until(&sandbox, now)?;
        Some(self.view_until(sandbox, ends_at))
    }

    /// Of one that is alive until then. From here on its times are those of the wall clock.
    pub(crate) fn view_until(&self, sandbox: Sandbox, ends_at: Timestamp) -> SandboxView {
        SandboxView {
            started_at: steady::to_wall(sandbox.started_at),
            ends_at: steady::to_wall(ends_at),
            access_token: sandbox.secured.then(|| self.keys.envd_token(&sandbox.id)),
            domain: self.config.domain.clone(),
            sandbox,
        }
    }
}
