//! One sandbox.

use casemate_store::{Sandbox, StoreError};
use casemate_types::{SandboxId, SandboxState, Timestamp, steady};

use super::{ChangeError, SandboxView, Shown, stands};
use crate::Control;
use crate::auth::TeamCaller;
use crate::transitions::Doing;

impl Control {
    /// A running or paused sandbox of the caller's team.
    pub async fn get_sandbox(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
    ) -> Result<Option<SandboxView>, ChangeError> {
        let row = self.own_row(caller, id).await?;
        Ok(row.and_then(|row| self.view(row, steady::now())))
    }

    /// Dead or alive, but the caller's. [`ChangeError::Lost`]: it ran on a node that is lost.
    pub(crate) async fn own_row(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
    ) -> Result<Option<Sandbox>, ChangeError> {
        let row = self.own_row_anywhere(caller, id).await?;
        if let Some(row) = &row {
            self.must_not_be_lost(row).await?;
        }
        Ok(row)
    }

    /// The same wherever it is.
    pub(crate) async fn own_row_anywhere(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
    ) -> Result<Option<Sandbox>, StoreError> {
        let row = self.store.sandbox_by_id(id).await?;
        Ok(row.filter(|row| row.team == caller.team.id))
    }

    /// Refuses one that is not there, or not the caller's.
    pub(crate) async fn must_stand(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
    ) -> Result<(), ChangeError> {
        let row = self.own_row(caller, id).await?;
        let stands = row.is_some_and(|row| stands(&row, steady::now()).is_some());
        stands
            .then_some(())
            .ok_or_else(|| ChangeError::NotFound(id.clone()))
    }

    /// As it stands, with what is being done to it; `None` when it is not there.
    pub(crate) fn view(&self, sandbox: Sandbox, now: Timestamp) -> Option<SandboxView> {
        let state = stands(&sandbox, now)?;
        let doing = self.transitions.of(&sandbox.id).map(|other| other.doing);
        let (shown, ends_at) = match (state, doing) {
            (_, Some(Doing::Killing)) => return None,
            (SandboxState::Running { ends_at }, Some(Doing::Pausing)) => {
                (Shown::Paused(None), ends_at.min(now))
            }
            (SandboxState::Running { ends_at }, _) => (Shown::Running, ends_at),
            // Less may be kept of it in the end.
            (SandboxState::Paused { at, .. }, Some(Doing::Pausing)) => (Shown::Paused(None), at),
            (SandboxState::Paused { at, kept }, _) => {
                let over = matches!(sandbox.state, SandboxState::Paused { .. });
                (Shown::Paused(over.then_some(kept)), at)
            }
            (SandboxState::Dead { .. }, _) => return None,
        };
        Some(self.view_as(sandbox, shown, ends_at))
    }

    /// From here on its times are those of the wall clock.
    pub(crate) fn view_as(
        &self,
        sandbox: Sandbox,
        shown: Shown,
        ends_at: Timestamp,
    ) -> SandboxView {
        let is_private = sandbox.ingress.is_private();
        SandboxView {
            shown,
            started_at: steady::to_wall(sandbox.started_at),
            ends_at: steady::to_wall(ends_at),
            access_token: sandbox.secured.then(|| self.keys.envd_token(&sandbox.id)),
            traffic_token: is_private.then(|| self.keys.traffic_token(&sandbox.id)),
            domain: self.config.domain.clone(),
            sandbox,
        }
    }
}
