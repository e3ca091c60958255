//! Having a node end or pause a sandbox, beside everything else.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use casemate_rpc::{NodeError, RunningSandbox};
use casemate_types::{EndReason, Kept, PauseReason, SandboxId, Timestamp, chain, steady};

use super::ReconcileError;
use crate::Control;
use crate::tasks::TaskKind;

impl Control {
    /// Has the node end a sandbox, and notes it. Not waited for: one that resists, as the kernel
    /// may hold its processes, must not keep everything else from being looked at. What fails is
    /// found again by the next comparison, or the next round.
    pub(super) fn end_soon(self: &Arc<Self>, node: &str, id: &SandboxId, reason: EndReason) {
        self.end_and(node, id, reason, |_, _| {});
    }

    /// Has the node pause a sandbox whose deadline has passed, and notes it. Not waited for, as
    /// above.
    pub(super) fn pause_soon(self: &Arc<Self>, node: &str, id: &SandboxId, kept: Kept) {
        if !self.ending.begin(id) {
            return;
        }
        let (control, node, id) = (Arc::clone(self), node.to_owned(), id.clone());
        self.tasks.spawn(TaskKind::Cleanup, async move {
            let paused = async {
                let reply = control.ask_node_to_pause(&node, &id, kept).await?;
                let reason = PauseReason::Expired;
                control.record_pause(&node, &id, reply, reason).await
            };
            let paused = paused.await;
            control.ending.done(&id);
            if let Err(error) = paused {
                tracing::warn!(
                    sandbox.id = %id, error = chain(&error),
                    "could not pause sandbox {id} yet"
                );
            }
        });
    }

    /// The same of one that has no row: its team finds its end among its events all the same.
    pub(super) fn end_orphan(self: &Arc<Self>, node: &str, orphan: RunningSandbox) {
        let id = orphan.sandbox.clone();
        self.end_and(node, &id, EndReason::Orphaned, move |control, at| {
            control.note_orphan_end(&orphan, at);
        });
    }

    fn end_and(
        self: &Arc<Self>,
        node: &str,
        id: &SandboxId,
        reason: EndReason,
        then: impl FnOnce(&Self, Timestamp) + Send + 'static,
    ) {
        if !self.ending.begin(id) {
            return;
        }
        let (control, node, id) = (Arc::clone(self), node.to_owned(), id.clone());
        self.tasks.spawn(TaskKind::Cleanup, async move {
            let killed = async { control.nodes.port(&node)?.kill(&id, reason).await };
            let ended = match killed.await {
                Ok(()) | Err(NodeError::NotFound(_)) => {
                    let now = steady::now();
                    let noted = control.note_ended(&node, &id, reason, now).await;
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
    pub(super) fn begin(&self, id: &SandboxId) -> bool {
        self.lock().insert(id.clone())
    }

    pub(super) fn done(&self, id: &SandboxId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<SandboxId>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}
