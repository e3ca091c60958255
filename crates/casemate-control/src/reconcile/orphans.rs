//! Sandboxes that the store never heard of: they get a grace, then they go (decision 4).

use std::collections::HashMap;

use casemate_types::{EndReason, SandboxId};
use tokio::time::Instant;

use super::{ReconcileError, sync};
use crate::Control;

/// Since when each one is known to be without a row.
#[derive(Default)]
pub(super) struct Orphans(HashMap<SandboxId, Instant>);

impl Orphans {
    pub(super) fn see(&mut self, id: &SandboxId) {
        self.0.entry(id.clone()).or_insert_with(Instant::now);
    }

    pub(super) fn forget(&mut self, id: &SandboxId) {
        self.0.remove(id);
    }

    /// Those that still run keep the time that they have had.
    pub(super) fn keep_only(&mut self, running: &[SandboxId]) {
        let running: std::collections::HashSet<_> = running.iter().collect();
        self.0.retain(|id, _| running.contains(id));
    }

    pub(super) async fn end_overdue(&mut self, control: &Control) -> Result<(), ReconcileError> {
        let grace = control.config.orphan_grace;
        let overdue =
            |(id, since): (&SandboxId, &Instant)| (since.elapsed() >= grace).then(|| id.clone());
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
