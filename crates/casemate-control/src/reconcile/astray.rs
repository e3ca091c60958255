//! Copies: a node has a sandbox whose row names another node.
//!
//! One that was paused and goes on elsewhere leaves one behind, at a node that was lost or did not answer
//! meanwhile. It is ended there, and the row is not touched by that. One that a resume makes right now has
//! no row yet that names its node: who makes it is known by the node, and is asked first.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use casemate_rpc::{NodeError, RunningSandbox};
use casemate_store::{AliveSandbox, Sandbox};
use casemate_types::{EndReason, SandboxId, SandboxState, chain};

use super::{Orphans, ReconcileError};
use crate::Control;
use crate::again::again;
use crate::nodes::Node;
use crate::nodes::reach::Reach;
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
    /// Has a node end what it has of a sandbox that is at another node. Not waited for, and tried until it
    /// is done: nobody else may look for it, as whoever made it lives.
    pub(crate) fn end_copy(self: &Arc<Self>, node: &str, id: &SandboxId) {
        if !self.copies.begin(node, id) {
            return;
        }
        let (control, node, id) = (Arc::clone(self), node.to_owned(), id.clone());
        self.tasks.spawn(TaskKind::Cleanup, async move {
            let end = async || {
                let _one = control.locks.lock(&id).await;
                control.try_to_end_copy(&node, &id).await
            };
            // What a process that ends leaves is nobody's then, and found by the node's keeper.
            let _ = again(&control.tasks, "could not end a copy of a sandbox", end).await;
            control.copies.done(&node, &id);
        });
    }

    /// The same for whoever has the sandbox's lock: the first attempt is waited for.
    pub(crate) async fn end_copy_now(self: &Arc<Self>, node: &str, id: &SandboxId) {
        let ended = self.try_to_end_copy(node, id).await;
        self.end_copy_unless(ended, node, id);
    }

    /// The same for whoever has just read its row.
    pub(crate) async fn kill_copy(self: &Arc<Self>, node: &str, id: &SandboxId) {
        let ended = self.try_to_kill_copy(node, id).await;
        self.end_copy_unless(ended, node, id);
    }

    fn end_copy_unless(
        self: &Arc<Self>,
        ended: Result<(), ReconcileError>,
        node: &str,
        id: &SandboxId,
    ) {
        if let Err(error) = ended {
            tracing::warn!(
                sandbox.id = %id, node, error = chain(&error),
                "could not end what node {node} has of sandbox {id} yet"
            );
            self.end_copy(node, id);
        }
    }

    async fn try_to_end_copy(&self, node: &str, id: &SandboxId) -> Result<(), ReconcileError> {
        // It may have come back there since it was judged.
        match self.store.sandbox_by_id(id).await? {
            Some(row) if is_elsewhere(&row, node) => self.try_to_kill_copy(node, id).await,
            Some(_) | None => Ok(()),
        }
    }

    async fn try_to_kill_copy(&self, node: &str, id: &SandboxId) -> Result<(), ReconcileError> {
        let killed = async { self.nodes.port(node)?.kill(id, EndReason::Killed).await };
        let killed = tokio::time::timeout(self.config.create_timeout, killed).await;
        match killed.unwrap_or(Err(NodeError::Unreachable)) {
            Ok(()) => tracing::info!(
                sandbox.id = %id, node,
                "ended what node {node} had of sandbox {id}, which is at another node"
            ),
            Err(NodeError::NotFound(_)) => {}
            Err(error) if self.is_connected(node) => return Err(error.into()),
            // All that it has is looked at anew once it is back.
            Err(error) => tracing::debug!(
                sandbox.id = %id, node, error = chain(&error),
                "what node {node} has of sandbox {id} is ended when it is back"
            ),
        }
        Ok(())
    }

    fn is_connected(&self, node: &str) -> bool {
        let node = self.nodes.get(node);
        node.is_ok_and(|node| node.reach() == Reach::Connected)
    }
}

/// Copies that are being ended, each one once, with their nodes.
#[derive(Default)]
pub(crate) struct Copies(Mutex<HashSet<(String, SandboxId)>>);

impl Copies {
    fn begin(&self, node: &str, id: &SandboxId) -> bool {
        self.lock().insert((node.to_owned(), id.clone()))
    }

    fn done(&self, node: &str, id: &SandboxId) {
        self.lock().remove(&(node.to_owned(), id.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(String, SandboxId)>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}
