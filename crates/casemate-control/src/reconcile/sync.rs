//! The comparison itself: one sandbox, all of them, and those past their deadline.

use std::collections::HashMap;
use std::time::Duration;

use casemate_catalog::Route;
use casemate_rpc::{NodeError, RunningSandbox};
use casemate_store::AliveSandbox;
use casemate_types::{EndReason, SandboxId, SandboxState, Timestamp};

use super::{Orphans, ReconcileError, reason_gone};
use crate::Control;

/// A node ends a sandbox within a second of its deadline; after this long we do it.
const OVERDUE_AFTER: Duration = Duration::from_secs(10);

/// Everything, after a watch began.
pub(super) async fn compare(
    control: &Control,
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
    let now = Timestamp::now();
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
    control: &Control,
    orphans: &mut Orphans,
    node: &str,
    sandbox: &RunningSandbox,
) -> Result<(), ReconcileError> {
    let id = &sandbox.sandbox;
    if control.recent.is_doomed(id) {
        return kill(control, id, EndReason::Killed).await;
    }
    if control.starting.contains(id) {
        // Its create writes row and route.
        return Ok(());
    }
    match control.store.sandbox_by_id(id).await?.map(|row| row.state) {
        Some(SandboxState::Running { ends_at }) => {
            orphans.forget(id);
            let route = Route { node: node.into() };
            control.catalog.route_put(id, route).await?;
            if ends_at.as_microsecond() != sandbox.ends_at.as_microsecond() {
                agree_on_deadline(control, id).await?;
            }
            Ok(())
        }
        Some(SandboxState::Dead { reason, .. }) => kill(control, id, reason).await,
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

pub(super) async fn kill(
    control: &Control,
    id: &SandboxId,
    reason: EndReason,
) -> Result<(), ReconcileError> {
    match control.node.kill(id, reason).await {
        Ok(()) | Err(NodeError::NotFound(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The backstop of the node's own clock, and of an end whose event was lost.
pub(super) async fn end_expired(control: &Control, node: &str) -> Result<(), ReconcileError> {
    let now = Timestamp::now();
    let alive = control.store.sandbox_list_alive().await?;
    let overdue = |row: &&AliveSandbox| row.node == node && row.ends_at + OVERDUE_AFTER < now;
    for row in alive.iter().filter(overdue) {
        tracing::warn!(sandbox.id = %row.id, "sandbox {} is past its deadline", row.id);
        kill(control, &row.id, EndReason::Expired).await?;
        control.note_ended(&row.id, EndReason::Expired, now).await?;
    }
    Ok(())
}
