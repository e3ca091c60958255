//! Connecting to a sandbox: the life of one that runs is extended, never cut; one that is paused
//! goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_types::{Kept, SandboxId, SandboxState, steady};

use super::resume::Resume;
use super::{ChangeError, SandboxView, Shown, stands};
use crate::Control;
use crate::auth::TeamCaller;
use crate::transitions::Doing;

/// How long one connect waits for changes that others make; more can only be somebody who plays
/// with it.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(20);

/// A sandbox that runs.
pub struct Connected {
    pub view: SandboxView,
    /// It was paused.
    pub resumed: bool,
}

impl Control {
    /// A running sandbox with a deadline of at least now + `timeout` (cut at the longest life), or
    /// one that was paused and goes on with exactly that; with [`Kept::Files`] it starts anew. A
    /// start that goes on is joined.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn connect(
        self: &Arc<Self>,
        caller: &TeamCaller,
        id: &SandboxId,
        timeout: Duration,
        from: Kept,
    ) -> Result<Connected, ChangeError> {
        if timeout > caller.limits.life_max() {
            return Err(ChangeError::TimeoutTooLong {
                hours: caller.limits.life_hours_max,
            });
        }
        let not_found = || ChangeError::NotFound(id.clone());
        let mut joined = false;
        let begun = Instant::now();
        while begun.elapsed() < WAIT_MAX {
            // Whose it is comes before what is done to it.
            let row = self.own_row(caller, id).await?.ok_or_else(not_found)?;
            let state = stands(&row, steady::now()).ok_or_else(not_found)?;
            if let Some(other) = self.transitions.of(id) {
                match other.doing {
                    Doing::Killing => return Err(busy(id, Doing::Killing)),
                    Doing::Resuming if from == Kept::Files => {
                        return Err(ChangeError::StartInFlight(id.clone()));
                    }
                    Doing::Resuming => joined = true,
                    Doing::Pausing | Doing::Snapshotting => {}
                }
                other.over().await;
                continue;
            }
            let found = if runs(&state) {
                self.connect_running(caller, id, timeout).await
            } else {
                let resume = Resume {
                    life: timeout,
                    from,
                    with_memory_only: false,
                    on_timeout: None,
                };
                match self.resume_or_running(caller, id, resume).await {
                    Ok(Some(view)) => {
                        joined = true;
                        Ok(view)
                    }
                    // Somebody was faster.
                    Ok(None) => continue,
                    Err(error) => Err(error),
                }
            };
            match found {
                Ok(view) => {
                    return Ok(Connected {
                        view,
                        resumed: joined,
                    });
                }
                Err(ChangeError::Busy {
                    doing: Doing::Killing,
                    ..
                }) => {
                    return Err(busy(id, Doing::Killing));
                }
                Err(ChangeError::Busy {
                    doing: Doing::Resuming,
                    ..
                }) => {
                    if from == Kept::Files {
                        return Err(ChangeError::StartInFlight(id.clone()));
                    }
                    joined = true;
                }
                // Another change began in between, or is over already; whether it is there at all
                // is looked at again.
                Err(ChangeError::Busy { .. } | ChangeError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let doing = self
            .transitions
            .of(id)
            .map_or(Doing::Resuming, |other| other.doing);
        Err(busy(id, doing))
    }

    async fn connect_running(
        self: &Arc<Self>,
        caller: &TeamCaller,
        id: &SandboxId,
        timeout: Duration,
    ) -> Result<SandboxView, ChangeError> {
        let _one = self.locks.lock(id).await;
        let (row, ends_at) = self.extend(caller, id, timeout).await?;
        Ok(self.view_as(row, Shown::Running, ends_at))
    }
}

pub(crate) fn busy(id: &SandboxId, doing: Doing) -> ChangeError {
    ChangeError::Busy {
        sandbox: id.clone(),
        doing,
    }
}

/// Whether it is one that runs.
pub(crate) fn runs(state: &SandboxState) -> bool {
    matches!(state, SandboxState::Running { .. })
}
