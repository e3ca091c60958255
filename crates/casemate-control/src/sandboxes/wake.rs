//! Traffic to a paused sandbox (`api.md` 4.3).

use std::sync::Arc;
use std::time::Duration;

use casemate_store::{Sandbox, StoreError};
use casemate_types::{Ingress, Kept, SandboxId, SandboxState, TokenHash, steady};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::resume::Resume;
use super::{ChangeError, stands};
use crate::Control;
use crate::auth::{TeamCaller, WhenBlocked, standing};
use crate::quota::QuotaReached;
use crate::transitions::Doing;

/// What came with the request that would wake it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Knock<'a> {
    /// It is for the agent's port.
    pub for_agent: bool,
    pub access_token: Option<&'a [u8]>,
    pub traffic_token: Option<&'a [u8]>,
}

/// Why traffic does not wake it.
#[derive(Debug, thiserror::Error)]
pub enum WakeError {
    /// There is none, or traffic does not wake it, or it did not come up.
    #[error("the sandbox does not run and was not woken")]
    NotFound,
    #[error("the request may not wake the sandbox")]
    Denied,
    #[error(transparent)]
    Quota(#[from] QuotaReached),
    /// Another change of it goes on for too long.
    #[error("the sandbox is still transitioning")]
    Transitioning,
    #[error("look up a sandbox")]
    Store(#[from] StoreError),
}

/// The least that a sandbox lives that traffic woke.
const LIFE_MIN: Duration = Duration::from_secs(300);
/// How long a request waits for changes that go on, and for how many.
const PATIENCE: Duration = Duration::from_secs(60);
const WAITS_MAX: u32 = 3;

impl Control {
    /// Wakes a paused sandbox for a request; it runs on return.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn wake(self: &Arc<Self>, id: &SandboxId, knock: Knock<'_>) -> Result<(), WakeError> {
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..WAITS_MAX {
            if let Some(other) = self.transitions.of(id) {
                if other.doing == Doing::Killing {
                    return Err(WakeError::NotFound);
                }
                let over = tokio::time::timeout_at(deadline, other.over());
                over.await.map_err(|_| WakeError::Transitioning)?;
            }
            let row = self.store.sandbox_by_id(id).await?;
            let row = row.ok_or(WakeError::NotFound)?;
            match stands(&row, steady::now()) {
                Some(SandboxState::Running { .. }) => return Ok(()),
                Some(SandboxState::Paused {
                    kept: Kept::Memory, ..
                }) if row.auto_resume => {}
                Some(_) | None => return Err(WakeError::NotFound),
            }
            if !self.may_wake(&row, knock) {
                return Err(WakeError::Denied);
            }
            let team = self.store.team_by_id(&row.team).await?;
            let team = team.ok_or(WakeError::NotFound)?;
            standing(&team, WhenBlocked::Refused).map_err(|_| WakeError::Denied)?;
            let limits = self.config.limits.of(&team);
            let caller = TeamCaller {
                team: team.into(),
                limits,
            };
            let resume = Resume {
                life: row.timeout.max(LIFE_MIN).min(limits.life_max()),
                from: Kept::Memory,
                with_memory_only: true,
                on_timeout: None,
            };
            match self.resume_or_running(&caller, id, resume).await {
                Ok(_) => return Ok(()),
                Err(ChangeError::Busy { .. }) => {}
                Err(ChangeError::Quota(reached)) => return Err(reached.into()),
                Err(ChangeError::Store(error)) => return Err(error.into()),
                Err(_) => return Err(WakeError::NotFound),
            }
        }
        Err(WakeError::Transitioning)
    }

    /// The node that a sandbox's row names; `None`: it has no row, or has ended.
    pub async fn home(&self, id: &SandboxId) -> Result<Option<String>, StoreError> {
        let row = self.store.sandbox_by_id(id).await?;
        let lives = row.filter(|row| !matches!(row.state, SandboxState::Dead { .. }));
        Ok(lives.map(|row| row.node))
    }

    /// A pause that goes on is waited for: its sandbox may be woken right after.
    pub async fn pause_over(&self, id: &SandboxId) {
        if let Some(other) = self.transitions.of(id)
            && other.doing == Doing::Pausing
        {
            // What is not over by then is for the request to find out.
            let _ = tokio::time::timeout(PATIENCE, other.over()).await;
        }
    }

    /// What traffic to the ports of a private sandbox is compared with.
    pub fn traffic_token_hash(&self, id: &SandboxId, ingress: &Ingress) -> Option<TokenHash> {
        self.keys.traffic_token_hash(id, ingress)
    }

    fn may_wake(&self, row: &Sandbox, knock: Knock<'_>) -> bool {
        let same = |given: Option<&[u8]>, token: String| {
            given.is_some_and(|given| given.ct_eq(token.as_bytes()).into())
        };
        if knock.for_agent {
            !row.secured || same(knock.access_token, self.keys.envd_token(&row.id))
        } else {
            !row.ingress.is_private() || same(knock.traffic_token, self.keys.traffic_token(&row.id))
        }
    }
}
