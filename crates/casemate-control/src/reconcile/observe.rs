//! A node whose keeper is another server: what it has is seen here, and not judged.
//!
//! But for this server's own creates: whether one that has no row is still being made, or was given
//! up, is known here alone.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use casemate_rpc::{NodeEvent, PausedSandbox, RunningSandbox};
use casemate_types::{EndReason, SandboxId, Timestamp};

use super::{Orphans, PAUSE_MIN, ReconcileError, SYNC_MAX, There, Words, see, sync, until_synced};
use crate::Control;
use crate::nodes::Node;

pub(super) async fn observe(
    control: &Arc<Control>,
    node: &Arc<Node>,
    orphans: &mut Orphans,
    pause: &mut Duration,
) -> Result<Infallible, ReconcileError> {
    let info = node.port.info().await?;
    if info.node != node.name {
        return Err(ReconcileError::OtherNode(info.node));
    }
    let mut events = node.port.observe().await?;
    let synced = tokio::time::timeout(SYNC_MAX, until_synced(&mut events));
    let (there, Words(words)) = synced.await.map_err(|_| ReconcileError::NeverSynced)??;
    control.see_all(node, &there);
    orphans.keep_only(&there.ids());
    for sandbox in &there.running {
        judge_own(control, orphans, node, sandbox).await?;
    }
    for sandbox in &there.paused {
        judge_own_paused(control, orphans, node, sandbox).await?;
    }
    for word in words {
        observed(control, orphans, node, word).await?;
    }
    control.heard_from(node, info).await?;
    control.connected(node);
    *pause = PAUSE_MIN;
    tracing::debug!(node = node.name, "node {} is observed", node.name);
    loop {
        tokio::select! {
            event = events.recv() => {
                let event = event.ok_or(ReconcileError::WatchEnded)?;
                observed(control, orphans, node, event).await?;
            }
            () = orphans.next_due() => orphans.end_overdue(control, &node.name).await?,
        }
    }
}

async fn observed(
    control: &Arc<Control>,
    orphans: &mut Orphans,
    node: &Node,
    event: NodeEvent,
) -> Result<(), ReconcileError> {
    see(control, node, &event)?;
    match event {
        NodeEvent::Running(sandbox) => judge_own(control, orphans, node, &sandbox).await?,
        NodeEvent::Paused(sandbox) => judge_own_paused(control, orphans, node, &sandbox).await?,
        NodeEvent::Ended {
            sandbox,
            reason,
            at,
        } => {
            orphans.forget(&sandbox);
            control.end_seen(&node.name, &sandbox, reason, at).await?;
        }
        NodeEvent::Heartbeat(info) => control.heard_from(node, *info).await?,
        // The keeper's.
        NodeEvent::Samples(_)
        | NodeEvent::Log { .. }
        | NodeEvent::MemoryFull { .. }
        | NodeEvent::Synced => {}
    }
    Ok(())
}

async fn judge_own(
    control: &Arc<Control>,
    orphans: &mut Orphans,
    node: &Node,
    sandbox: &RunningSandbox,
) -> Result<(), ReconcileError> {
    let is_doomed = control.recent.is_doomed(&sandbox.sandbox);
    if !is_doomed && (sandbox.recorded || sandbox.creator != control.owner) {
        orphans.forget(&sandbox.sandbox);
        return Ok(());
    }
    sync::judge_unrecorded(control, orphans, node, sandbox).await?;
    Ok(())
}

async fn judge_own_paused(
    control: &Arc<Control>,
    orphans: &mut Orphans,
    node: &Node,
    sandbox: &PausedSandbox,
) -> Result<(), ReconcileError> {
    let is_doomed = control.recent.is_doomed(&sandbox.sandbox);
    if !is_doomed && (sandbox.recorded || sandbox.creator != control.owner) {
        orphans.forget(&sandbox.sandbox);
        return Ok(());
    }
    sync::judge_paused_unrecorded(control, orphans, node, sandbox).await?;
    Ok(())
}

impl There {
    pub(super) fn ids(&self) -> Vec<SandboxId> {
        let running = self.running.iter().map(|one| &one.sandbox);
        let paused = self.paused.iter().map(|one| &one.sandbox);
        running.chain(paused).cloned().collect()
    }
}

impl Control {
    /// Takes in what a node has.
    pub(super) fn see_all(&self, node: &Node, there: &There) {
        if self.shared().is_none() {
            return;
        }
        let ids: HashSet<SandboxId> = there.ids().into_iter().collect();
        for (team, gone) in node.there.keep_only(|id| ids.contains(id)) {
            self.quota.give_back(&team, &gone);
        }
        for sandbox in &there.running {
            node.there.runs(sandbox);
            if !sandbox.warm {
                self.quota.count(&sandbox.team, &sandbox.sandbox);
            }
        }
        for sandbox in &there.paused {
            node.there.rests(sandbox);
            self.quota.give_back(&sandbox.team, &sandbox.sandbox);
        }
    }

    /// Takes in what happens at it.
    pub(super) fn see(&self, node: &Node, event: &NodeEvent) {
        if self.shared().is_none() {
            return;
        }
        match event {
            NodeEvent::Running(sandbox) => {
                let begins = node.there.runs(sandbox);
                if !sandbox.warm {
                    self.quota.count(&sandbox.team, &sandbox.sandbox);
                }
                if begins {
                    self.quota.note_start(&sandbox.team);
                }
            }
            NodeEvent::Paused(sandbox) => {
                node.there.rests(sandbox);
                // One that comes up here has its place already.
                if self.transitions.of(&sandbox.sandbox).is_none() {
                    self.quota.give_back(&sandbox.team, &sandbox.sandbox);
                }
            }
            NodeEvent::Ended { sandbox, .. } => {
                if let Some(team) = node.there.gone(sandbox) {
                    self.quota.give_back(&team, sandbox);
                }
            }
            NodeEvent::Synced
            | NodeEvent::Samples(_)
            | NodeEvent::Log { .. }
            | NodeEvent::MemoryFull { .. }
            | NodeEvent::Heartbeat(_) => {}
        }
    }

    /// An end that the keeper notes, unless the row came after it had looked.
    async fn end_seen(
        &self,
        node: &str,
        sandbox: &SandboxId,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<(), ReconcileError> {
        self.warm.ended(sandbox);
        self.recent.ended(sandbox, node, reason, at);
        if self.recent.is_made(sandbox) {
            self.note_told_end(node, sandbox, reason, at).await?;
        }
        Ok(())
    }
}
