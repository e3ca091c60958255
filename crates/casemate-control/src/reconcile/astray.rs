//! Copies: a node has a sandbox whose row names another node.
//!
//! One that was paused and goes on elsewhere leaves one behind, at a node that was lost or did not answer
//! meanwhile. It is ended there, and the row is not touched by that. One that a resume makes right now has
//! no row yet that names its node: who makes it is known by the node, and is asked first.

use std::collections::HashSet;
use std::sync::Arc;

use casemate_rpc::{NodeError, RunningSandbox};
use casemate_store::{AliveSandbox, Sandbox};
use casemate_types::{EndReason, SandboxId, SandboxState, chain};

use super::{Orphans, ReconcileError};
use crate::Control;
use crate::nodes::Node;
use crate::tasks::TaskKind;

/// Whether it lives, and not at this node.
pub(crate) fn is_elsewhere(row: &Sandbox, node: &str) -> bool {
    !matches!(row.state, SandboxState::Dead { .. }) && row.node != node
}

pub(super) fn judge(
    control: &Arc<Control>,
    orphans: &mut Orphans,
    node: &Node,
    copy: &RunningSandbox,
) {
    if copy.recorded {
        orphans.forget(&copy.sandbox);
        control.end_copy(&node.name, &copy.sandbox);
    } else {
        orphans.see(&control.config, copy);
    }
}

/// One whose grace is over. As long as somebody makes it, it gets another one.
pub(super) async fn end_unless_begun(
    control: &Arc<Control>,
    orphans: &mut Orphans,
    node: &str,
    copy: &RunningSandbox,
) -> Result<(), ReconcileError> {
    let id = &copy.sandbox;
    if control.starting.contains(id) || control.is_anothers(&copy.creator).await? {
        orphans.see(&control.config, copy);
    } else {
        control.end_copy(node, id);
    }
    Ok(())
}

/// What became a copy while its node was connected, or was killed by a server that held the node for lost
/// still: `alive` are the rows that name it.
pub(super) async fn end_known(
    control: &Arc<Control>,
    node: &Node,
    alive: &[AliveSandbox],
) -> Result<(), ReconcileError> {
    let rows: HashSet<&SandboxId> = alive.iter().map(|row| &row.id).collect();
    for id in node.there.recorded() {
        if rows.contains(&id) || control.starting.contains(&id) {
            continue;
        }
        let Some(row) = control.store.sandbox_by_id(&id).await? else {
            continue;
        };
        match row.state {
            SandboxState::Dead { reason, .. } => control.end_soon(&node.name, &id, reason),
            SandboxState::Running { .. } | SandboxState::Paused { .. } => {
                if is_elsewhere(&row, &node.name) {
                    control.end_copy(&node.name, &id);
                }
            }
        }
    }
    Ok(())
}

impl Control {
    /// Has a node end what it has of a sandbox that is at another node. Not waited for; what fails is
    /// found again by the node's keeper.
    pub(crate) fn end_copy(self: &Arc<Self>, node: &str, id: &SandboxId) {
        let (control, node, id) = (Arc::clone(self), node.to_owned(), id.clone());
        self.tasks.spawn(TaskKind::Cleanup, async move {
            if !control.ending.begin(&id) {
                return;
            }
            let one = control.locks.lock(&id).await;
            control.end_copy_now(&node, &id).await;
            drop(one);
            control.ending.done(&id);
        });
    }

    /// The same, waited for, for whoever has the sandbox's lock.
    pub(crate) async fn end_copy_now(&self, node: &str, id: &SandboxId) {
        // It may have come back there since it was judged.
        match self.store.sandbox_by_id(id).await {
            Ok(Some(row)) if is_elsewhere(&row, node) => self.kill_copy(node, id).await,
            Ok(_) => {}
            Err(error) => tracing::debug!(
                error = chain(&error),
                "what is on node {node} is looked at later"
            ),
        }
    }

    /// The same for whoever has just read its row.
    pub(crate) async fn kill_copy(&self, node: &str, id: &SandboxId) {
        let killed = async { self.nodes.port(node)?.kill(id, EndReason::Killed).await };
        let killed = tokio::time::timeout(self.config.create_timeout, killed).await;
        match killed.unwrap_or(Err(NodeError::Unreachable)) {
            Ok(()) => tracing::info!(
                sandbox.id = %id, node,
                "ended what node {node} had of sandbox {id}, which is at another node"
            ),
            Err(NodeError::NotFound(_)) => {}
            Err(error) => tracing::warn!(
                sandbox.id = %id, node, error = chain(&error),
                "could not end what node {node} has of sandbox {id} yet"
            ),
        }
    }
}
