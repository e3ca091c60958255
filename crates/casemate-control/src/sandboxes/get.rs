//! One sandbox.

use casemate_store::{Sandbox, StoreError};
use casemate_types::{SandboxId, Timestamp};

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
        Ok(row.and_then(|row| self.view(row, Timestamp::now())))
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
        Some(SandboxView {
            ends_at,
            access_token: sandbox.secured.then(|| self.keys.envd_token(&sandbox.id)),
            domain: self.config.domain.clone(),
            sandbox,
        })
    }
}
