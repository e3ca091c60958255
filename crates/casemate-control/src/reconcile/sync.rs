//! The comparison itself: one sandbox, all of them, and those past their deadline.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use casemate_catalog::Route;
use casemate_rpc::{NodeError, RunningSandbox};
use casemate_store::AliveSandbox;
use casemate_types::{EndReason, SandboxId, SandboxState, Timestamp, chain, steady};

use super::{Orphans, ReconcileError, reason_gone};
use crate::Control;
use crate::tasks::TaskKind;

/// A node ends a sandbox within a second of its deadline; after this long we do it.
const OVERDUE_AFTER: Duration = Duration::from_secs(10);

/// Everything, after a watch began.
pub(super) async fn compare(
    control: &Arc<Control>,
    orphans: &mut Orphans,
    node: &str,
    should_run: &[AliveSandbox],
    running: &[RunningSandbox],
) -> Result<(), ReconcileError> {
    let ids: Vec<SandboxId> = running.iter().map(|r| r.sandbox.clone()).collect();
    control.catalog.routes_replace(node, &ids).await?;
    orphans.keep_only(&ids);
    let runs: HashMap<&SandboxId, &RunningSandbox> =
        running.iter().map(|r| (&r.sandbox, r)).collect();
    let now = steady::now();
    for row in should_run.iter().filter(|row| row.node == node) {
        match runs.get(&row.id) {
            None => {
                let reason = reason_gone(row.ends_at, now);
                control.note_ended(&row.id, reason, now).await?;
            }
            Some(sandbox) => control.quota.count(&sandbox.team, &sandbox.sandbox),
        }
    }
    for sandbox in running {
        judge(control, orphans, node, sandbox).await?;
    }
    Ok(())
}

/// One that runs: whether it should, and until when.
pub(super) async fn judge(
    control: &Arc<Control>,
    orphans: &mut Orphans,
    node: &str,
    sandbox: &RunningSandbox,
) -> Result<(), ReconcileError> {
    let id = &sandbox.sandbox;
    if control.recent.is_doomed(id) {
        control.end_soon(id, EndReason::Killed);
        return Ok(());
    }
    if control.starting.contains(id) {
        // Its create writes row and route.
        return Ok(());
    }
    match control.store.sandbox_by_id(id).await?.map(|row| row.state) {
        Some(SandboxState::Running { ends_at }) => {
            orphans.forget(id);
            if !sandbox.recorded {
                control.records.note(id);
            }
            let route = Route { node: node.into() };
            control.catalog.route_put(id, route).await?;
            if ends_at.as_microsecond() != sandbox.ends_at.as_microsecond() {
                agree_on_deadline(control, id).await?;
            }
            Ok(())
        }
        Some(SandboxState::Dead { reason, .. }) => {
            control.end_soon(id, reason);
            Ok(())
        }
        None => {
            orphans.see(&control.config, sandbox);
            Ok(())
        }
    }
}

/// The store's deadline is the promise. Read again under the sandbox's lock: a change may be
/// under way.
async fn agree_on_deadline(control: &Control, id: &SandboxId) -> Result<(), ReconcileError> {
    let _one = control.locks.lock(id).await;
    let Some(row) = control.store.sandbox_by_id(id).await? else {
        return Ok(());
    };
    if let SandboxState::Running { ends_at } = row.state {
        match control.node.set_deadline(id, ends_at).await {
            Ok(()) | Err(NodeError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Control {
    /// Has the node end a sandbox, and notes it. Not waited for: one that resists, as the kernel
    /// may hold its processes, must not keep everything else from being looked at. What fails is
    /// found again by the next comparison, or the next round.
    pub(super) fn end_soon(self: &Arc<Self>, id: &SandboxId, reason: EndReason) {
        self.end_and(id, reason, |_, _| {});
    }

    /// The same of one that has no row: its team finds its end among its events all the same.
    pub(super) fn end_orphan(self: &Arc<Self>, orphan: RunningSandbox) {
        let id = orphan.sandbox.clone();
        self.end_and(&id, EndReason::Orphaned, move |control, at| {
            control.note_orphan_end(&orphan, at);
        });
    }

    fn end_and(
        self: &Arc<Self>,
        id: &SandboxId,
        reason: EndReason,
        then: impl FnOnce(&Self, Timestamp) + Send + 'static,
    ) {
        if !self.ending.begin(id) {
            return;
        }
        let (control, id) = (Arc::clone(self), id.clone());
        self.tasks.spawn(TaskKind::Cleanup, async move {
            let ended = match control.node.kill(&id, reason).await {
                Ok(()) | Err(NodeError::NotFound(_)) => {
                    let now = steady::now();
                    let noted = control.note_ended(&id, reason, now).await;
                    then(&control, now);
                    noted.map(drop).map_err(ReconcileError::from)
                }
                Err(error) => Err(error.into()),
            };
            control.ending.done(&id);
            if let Err(error) = ended {
                tracing::warn!(
                    sandbox.id = %id, error = chain(&error),
                    "could not end sandbox {id} yet"
                );
            }
        });
    }
}

/// Sandboxes that are being ended by [`Control::end_soon`], each one once.
#[derive(Default)]
pub(crate) struct Ending(Mutex<HashSet<SandboxId>>);

impl Ending {
    fn begin(&self, id: &SandboxId) -> bool {
        self.lock().insert(id.clone())
    }

    fn done(&self, id: &SandboxId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<SandboxId>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// The backstop of the node's own clock, and of an end whose event was lost.
pub(super) async fn end_expired(control: &Arc<Control>, node: &str) -> Result<(), ReconcileError> {
    let now = steady::now();
    let alive = control.store.sandbox_list_alive().await?;
    let overdue = |row: &&AliveSandbox| row.node == node && row.ends_at + OVERDUE_AFTER < now;
    for row in alive.iter().filter(overdue) {
        tracing::warn!(sandbox.id = %row.id, "sandbox {} is past its deadline", row.id);
        control.end_soon(&row.id, EndReason::Expired);
    }
    Ok(())
}
