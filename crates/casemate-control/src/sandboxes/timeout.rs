//! Deadlines: set, or only extended.
//!
//! The store is written first: it says what was promised, and a node that missed the word is
//! told again when it is back (`reconcile`).

use std::sync::Arc;
use std::time::Duration;

use casemate_store::{Sandbox, StoreError};
use casemate_types::limits::REFRESH_SECONDS_MIN;
use casemate_types::{OnTimeout, SandboxId, SandboxState, Timestamp, steady};

use super::{ChangeError, stands};
use crate::Control;
use crate::auth::TeamCaller;
use crate::transitions::Doing;

impl Control {
    /// Deadline = now + `timeout`, earlier or later, cut at the longest life of a run.
    pub async fn set_timeout(
        self: &Arc<Self>,
        caller: &TeamCaller,
        id: &SandboxId,
        timeout: Duration,
    ) -> Result<(), ChangeError> {
        self.not_busy(caller, id).await?;
        let _one = self.locks.lock(id).await;
        loop {
            let (row, _) = self.running_row(caller, id).await?;
            let now = steady::now();
            let last = row.started_at + caller.limits.life_max();
            if now >= last {
                return Err(ChangeError::LifeExceeded);
            }
            match self.move_deadline(&row, (now + timeout).min(last)).await? {
                Moved::Yes => return Ok(()),
                Moved::Overtaken => {}
            }
        }
    }

    /// Keep-alive: never shortens, at least [`REFRESH_SECONDS_MIN`].
    pub async fn refresh(
        self: &Arc<Self>,
        caller: &TeamCaller,
        id: &SandboxId,
        duration: Duration,
    ) -> Result<(), ChangeError> {
        let least = Duration::from_secs(REFRESH_SECONDS_MIN.into());
        self.not_busy(caller, id).await?;
        let _one = self.locks.lock(id).await;
        self.extend(caller, id, duration.max(least)).await.map(drop)
    }

    /// Moves the deadline to now + `timeout` if that is later, cut at the longest life; the sandbox,
    /// and what its deadline is afterwards. The caller holds the sandbox's lock.
    pub(crate) async fn extend(
        self: &Arc<Self>,
        caller: &TeamCaller,
        id: &SandboxId,
        timeout: Duration,
    ) -> Result<(Sandbox, Timestamp), ChangeError> {
        loop {
            let (row, ends_at) = self.running_row(caller, id).await?;
            let last = row.started_at + caller.limits.life_max();
            let wanted = (steady::now() + timeout).min(last);
            if wanted <= ends_at {
                return Ok((row, ends_at));
            }
            match self.move_deadline(&row, wanted).await? {
                Moved::Yes => return Ok((row, wanted)),
                Moved::Overtaken => {}
            }
        }
    }

    /// Refuses a change of the caller's sandbox while another one goes on that takes it out of its
    /// run. One that comes up is waited for by its lock.
    pub(crate) async fn not_busy(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
    ) -> Result<(), ChangeError> {
        let doing = match self.transitions.of(id).map(|other| other.doing) {
            None | Some(Doing::Resuming) => return Ok(()),
            Some(doing) => doing,
        };
        // Another team's is not there, whatever is done to it.
        let row = self.own_row(caller, id).await?;
        row.ok_or_else(|| ChangeError::NotFound(id.clone()))?;
        Err(super::connect::busy(id, doing))
    }

    /// A running sandbox of the caller's team and its deadline.
    pub(crate) async fn running_row(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
    ) -> Result<(Sandbox, Timestamp), ChangeError> {
        let not_found = || ChangeError::NotFound(id.clone());
        let row = self.own_row(caller, id).await?.ok_or_else(not_found)?;
        match stands(&row, steady::now()) {
            Some(SandboxState::Running { ends_at }) => Ok((row, ends_at)),
            // Its deadline came, and the node pauses it.
            Some(SandboxState::Paused { .. })
                if matches!(row.state, SandboxState::Running { .. })
                    && row.on_timeout != OnTimeout::Kill =>
            {
                Err(super::connect::busy(id, Doing::Pausing))
            }
            Some(_) | None => Err(not_found()),
        }
    }

    async fn move_deadline(
        self: &Arc<Self>,
        row: &Sandbox,
        ends_at: Timestamp,
    ) -> Result<Moved, ChangeError> {
        let written = self
            .store
            .sandbox_set_deadline(&row.id, row.generation, ends_at)
            .await;
        match written {
            Ok(_) => {}
            // With the sandbox's lock held only another server can have changed it.
            Err(StoreError::Conflict { .. }) if self.shared().is_some() => {
                return Ok(Moved::Overtaken);
            }
            Err(error) => {
                if error.is_in_doubt() {
                    self.agree_on_deadline_soon(&row.id);
                }
                return Err(gone_or(&row.id, error));
            }
        }
        self.note_deadline(row, ends_at);
        self.tell_deadline(row, ends_at).await?;
        Ok(Moved::Yes)
    }

    /// Tells the node, until it was told what the row says: words of several servers may arrive in
    /// another order than that of their writes.
    async fn tell_deadline(&self, row: &Sandbox, ends_at: Timestamp) -> Result<(), ChangeError> {
        let mut ends_at = ends_at;
        loop {
            let set = async {
                let node = self.nodes.port(&row.node)?;
                node.set_deadline(&row.id, ends_at).await
            };
            self.told(&row.node, &row.id, set.await).await?;
            if self.shared().is_none() {
                return Ok(());
            }
            let now = self.store.sandbox_by_id(&row.id).await?;
            match now.map(|row| row.state) {
                Some(SandboxState::Running { ends_at: promised })
                    if promised.as_microsecond() != ends_at.as_microsecond() =>
                {
                    ends_at = promised;
                }
                Some(_) | None => return Ok(()),
            }
        }
    }
}

/// What became of a change of the deadline.
enum Moved {
    Yes,
    /// Another server changed the row in between: it is to be read again.
    Overtaken,
}

/// What a write's failure means: with the sandbox's lock held, a conflict is its death.
pub(crate) fn gone_or(id: &SandboxId, error: StoreError) -> ChangeError {
    match error {
        StoreError::Conflict { .. } => ChangeError::NotFound(id.clone()),
        error => ChangeError::Store(error),
    }
}
