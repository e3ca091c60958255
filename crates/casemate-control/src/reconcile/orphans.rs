//! Sandboxes that run and have no row: they get a grace, then they go (decision 4).
//!
//! Those that the node was told of once ([`super::records`]) stand for a store that was lost or
//! restored from a copy: an operator needs minutes to see it. The others are creates that a crash
//! cut off between the node's answer and the row: nobody was told of them, and a row that is still
//! on its way (from another replica) comes within seconds.

use std::collections::HashMap;
use std::sync::Arc;

use casemate_rpc::RunningSandbox;
use casemate_store::sandboxes::FIRST_GENERATION;
use casemate_types::{EndReason, SandboxId};
use tokio::time::Instant;

use super::{ReconcileError, astray};
use crate::Control;
use crate::config::ControlConfig;
use crate::nodes::Node;

/// When the grace of each one that is known to be without a row is over.
#[derive(Default)]
pub(super) struct Orphans(HashMap<SandboxId, Orphan>);

struct Orphan {
    due: Instant,
    facts: RunningSandbox,
}

impl Orphans {
    /// The first look at one begins its grace.
    pub(super) fn see(&mut self, config: &ControlConfig, sandbox: &RunningSandbox) {
        let grace = match sandbox.recorded {
            true => config.orphan_grace,
            false => config.row_grace.min(config.orphan_grace),
        };
        let orphan = || Orphan {
            due: Instant::now() + grace,
            facts: sandbox.clone(),
        };
        self.0.entry(sandbox.sandbox.clone()).or_insert_with(orphan);
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
        match self.0.values().map(|orphan| orphan.due).min() {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn end_overdue(
        &mut self,
        control: &Arc<Control>,
        node: &Node,
    ) -> Result<(), ReconcileError> {
        let (now, name) = (Instant::now(), node.name.as_str());
        let overdue: Vec<_> = self.0.extract_if(|_, orphan| orphan.due <= now).collect();
        for (id, orphan) in overdue {
            let is_recorded = !orphan.facts.recorded && node.there.is_recorded(&id);
            // In this order, as where it was judged.
            if is_recorded || control.warm.has(&id) {
                continue;
            }
            if control.starting.contains(&id) {
                self.see(&control.config, &orphan.facts);
                continue;
            }
            if let Some(row) = control.store.sandbox_by_id(&id).await? {
                if astray::is_elsewhere(&row, name) {
                    astray::end_unless_begun(control, self, name, &orphan.facts).await?;
                } else if row.generation > FIRST_GENERATION {
                    // It goes on here, and whoever wrote that may have had no answer: then its route does
                    // not lead here yet.
                    control.records.note(name, &id);
                    control.route_as_noted(&id, name).await?;
                }
                continue;
            }
            if !orphan.facts.recorded && control.is_anothers(&orphan.facts.creator).await? {
                // Whoever makes it may die before it has a row.
                self.see(&control.config, &orphan.facts);
                continue;
            }
            // Until its end is heard of it is asked for again.
            self.see(&control.config, &orphan.facts);
            if orphan.facts.warm {
                control.end_soon(name, &id, EndReason::Killed);
            } else {
                tracing::warn!(
                    sandbox.id = %id, event = "sandbox.orphan_ended",
                    "sandbox {id} has no record; its grace is over and it is ended"
                );
                control.end_orphan(name, orphan.facts);
            }
        }
        Ok(())
    }
}
