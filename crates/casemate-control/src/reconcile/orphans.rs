//! Sandboxes that the store never heard of: they get a grace, then they go (decision 4).
//!
//! There are two kinds, and only their age tells them apart. Old ones stand for a store that was
//! lost or restored from a copy: an operator needs minutes to see it. One that has just been made
//! is a create that a crash cut off between the node's answer and the row: nobody was told of it,
//! and a row that is still on its way (from another replica) comes within seconds.

use std::collections::HashMap;

use casemate_rpc::RunningSandbox;
use casemate_types::{EndReason, SandboxId, Timestamp};
use tokio::time::Instant;

use super::{ReconcileError, sync};
use crate::Control;
use crate::config::ControlConfig;

/// When the grace of each one that is known to be without a row is over.
#[derive(Default)]
pub(super) struct Orphans(HashMap<SandboxId, Instant>);

impl Orphans {
    /// The first look at one begins its grace.
    pub(super) fn see(&mut self, config: &ControlConfig, sandbox: &RunningSandbox) {
        let age = Timestamp::now().duration_since(sandbox.started_at);
        let young = age.unsigned_abs() < config.create_timeout;
        let grace = if young {
            config.row_grace.min(config.orphan_grace)
        } else {
            config.orphan_grace
        };
        let due = || Instant::now() + grace;
        self.0.entry(sandbox.sandbox.clone()).or_insert_with(due);
    }

    pub(super) fn forget(&mut self, id: &SandboxId) {
        self.0.remove(id);
    }

    /// Those that still run keep the time that they have had.
    pub(super) fn keep_only(&mut self, running: &[SandboxId]) {
        let running: std::collections::HashSet<_> = running.iter().collect();
        self.0.retain(|id, _| running.contains(id));
    }

    /// Returns when the next grace is over; never without orphans.
    pub(super) async fn next_due(&self) {
        match self.0.values().min() {
            Some(due) => tokio::time::sleep_until(*due).await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn end_overdue(&mut self, control: &Control) -> Result<(), ReconcileError> {
        let now = Instant::now();
        let overdue = |(id, due): (&SandboxId, &Instant)| (*due <= now).then(|| id.clone());
        let overdue: Vec<_> = self.0.iter().filter_map(overdue).collect();
        for id in overdue {
            if control.store.sandbox_by_id(&id).await?.is_none() {
                tracing::warn!(
                    sandbox.id = %id, event = "sandbox.orphan_ended",
                    "sandbox {id} has no record; its grace is over and it is ended"
                );
                sync::kill(control, &id, EndReason::Orphaned).await?;
            }
            self.forget(&id);
        }
        Ok(())
    }
}
