//! The comparison itself: one sandbox, all of them, and those past their deadline.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use casemate_catalog::Route;
use casemate_rpc::{NodeError, PausedSandbox, PolicyDigest, RunningSandbox};
use casemate_store::{AliveSandbox, NewRun, Sandbox, StoreError};
use casemate_types::{EndReason, Kept, OnTimeout, SandboxId, SandboxState, chain, steady};

use super::{Orphans, ReconcileError, There, astray, reason_gone};
use crate::Control;
use crate::again::again;
use crate::nodes::Node;
use crate::sandboxes::pause::Paused;
use crate::tasks::TaskKind;

/// A node ends a sandbox within a second of its deadline; after this long we do it.
const OVERDUE_AFTER: Duration = Duration::from_secs(10);

/// Everything, after a watch began. `is_lost`: the node was given up, and returns after this.
pub(super) async fn compare(
    control: &Arc<Control>,
    orphans: &mut Orphans,
    node: &Node,
    should_be: &[AliveSandbox],
    there: &There,
    is_lost: bool,
) -> Result<(), ReconcileError> {
    let running = there.running.iter().map(|one| (&one.sandbox, false));
    let paused = there.paused.iter().map(|one| (&one.sandbox, true));
    let asleep: HashMap<&SandboxId, bool> = running.chain(paused).collect();
    let rows: HashMap<&SandboxId, &AliveSandbox> =
        should_be.iter().map(|row| (&row.id, row)).collect();
    // Of those without a row here, a create may have put the route already.
    let (known, unsure): (Vec<_>, Vec<_>) = asleep
        .iter()
        .map(|(id, asleep)| (*id, *asleep, rows.get(id)))
        .partition(|(_, _, row)| row.is_some());
    let routes = known.into_iter().filter_map(|(id, asleep, row)| {
        let row = row?;
        let route = Route {
            node: node.name.clone(),
            asleep,
            ingress: row.ingress.clone(),
            generation: row.generation,
            traffic_token: control.keys.traffic_token_hash(id, &row.ingress),
        };
        Some((id.clone(), route))
    });
    let unsure: Vec<SandboxId> = unsure.into_iter().map(|(id, ..)| id.clone()).collect();
    let routes: Vec<_> = routes.collect();
    // Before traffic is let in: what was lost of them decides whether it wakes them.
    for sandbox in &there.paused {
        control.note_paused(&as_told(node, sandbox)).await?;
    }
    control
        .catalog
        .routes_replace(&node.name, &routes, &unsure)
        .await?;
    let ids: Vec<SandboxId> = asleep.keys().map(|id| (*id).clone()).collect();
    orphans.keep_only(&ids);
    let now = steady::now();
    for row in should_be.iter().filter(|row| row.node == node.name) {
        match (asleep.get(&row.id), &row.state) {
            (None, SandboxState::Running { ends_at }) if row.on_timeout == OnTimeout::Kill => {
                let reason = reason_gone(*ends_at, now);
                control.note_ended(&node.name, &row.id, reason, now).await?;
            }
            // Its disk is another one: it goes on at any node.
            (None, SandboxState::Paused { .. }) if row.is_stored => {}
            (None, _) => {
                let reason = EndReason::Lost;
                control.note_ended(&node.name, &row.id, reason, now).await?;
            }
            (Some(_), _) => {}
        }
    }
    if is_lost {
        // Until it is back whoever resumes one does so elsewhere, from older files.
        for sandbox in &there.running {
            let is_older = |row: &AliveSandbox| match row.state {
                SandboxState::Paused { at, .. } => sandbox.started_at > at,
                SandboxState::Running { .. } | SandboxState::Dead { .. } => false,
            };
            let id = &sandbox.sandbox;
            let is_unwritten = rows.get(id).is_some_and(|row| is_older(row));
            if is_unwritten && control.transitions.of(id).is_none() {
                control.note_running(&node.name, sandbox).await?;
            }
        }
    }
    for sandbox in &there.running {
        judge(control, orphans, node, sandbox).await?;
    }
    for sandbox in &there.paused {
        judge_paused(control, orphans, node, sandbox).await?;
    }
    Ok(())
}

/// One that runs: whether it should, and until when.
pub(super) async fn judge(
    control: &Arc<Control>,
    orphans: &mut Orphans,
    node: &Node,
    sandbox: &RunningSandbox,
) -> Result<(), ReconcileError> {
    let id = &sandbox.sandbox;
    let Some(row) = judge_unrecorded(control, orphans, node, sandbox).await? else {
        return Ok(());
    };
    match row.state {
        SandboxState::Running { ends_at } => {
            orphans.forget(id);
            if !sandbox.recorded {
                control.records.note(&node.name, id);
            }
            let is_this_run =
                row.started_at.as_microsecond() == sandbox.started_at.as_microsecond();
            control.route_as_noted(id, &node.name).await?;
            if is_this_run && ends_at.as_microsecond() != sandbox.ends_at.as_microsecond() {
                agree_on_deadline(control, id).await?;
            }
            if is_this_run && sandbox.network.is_some() && sandbox.network != promised(&row) {
                control.agree_on_network_soon(id);
            }
            Ok(())
        }
        SandboxState::Paused { at, .. } => {
            orphans.forget(id);
            // Otherwise its pause is the younger.
            if sandbox.started_at > at {
                control.note_running_soon(node, sandbox).await?;
            }
            Ok(())
        }
        SandboxState::Dead { reason, .. } => {
            control.end_soon(&node.name, id, reason);
            Ok(())
        }
    }
}

/// The network policy that is to hold for it.
fn promised(row: &Sandbox) -> Option<PolicyDigest> {
    let policy = row.network.compile().ok()?;
    Some(PolicyDigest::of(&policy))
}

/// One that may have no row; what is left to judge is its row.
pub(super) async fn judge_unrecorded(
    control: &Arc<Control>,
    orphans: &mut Orphans,
    node: &Node,
    sandbox: &RunningSandbox,
) -> Result<Option<Sandbox>, ReconcileError> {
    let id = &sandbox.sandbox;
    if control.recent.is_doomed(id) {
        control.end_soon(&node.name, id, EndReason::Killed);
        return Ok(None);
    }
    // In this order: one that is given away leaves the warm ones for those that start.
    if control.warm.has(id) {
        // It has no row because it is nobody's yet.
        return Ok(None);
    }
    if control.starting.contains(id) {
        // Whoever makes it writes row and route, or has it ended. If neither comes about, nobody else
        // looks for it as long as this server lives.
        if control.shared().is_some() {
            orphans.see(&control.config, sandbox);
        }
        return Ok(None);
    }
    if control.builder.held().has_sandbox(id) {
        return Ok(None);
    }
    if let Some(row) = control.store.sandbox_by_id(id).await? {
        if astray::is_elsewhere(&row, &node.name) {
            astray::judge(control, orphans, node, sandbox);
            return Ok(None);
        }
        return Ok(Some(row));
    }
    if sandbox.warm && !control.is_anothers(&sandbox.creator).await? {
        // Of an earlier process, and nobody was told of it.
        control.end_soon(&node.name, id, EndReason::Killed);
    } else {
        orphans.see(&control.config, sandbox);
    }
    Ok(None)
}

/// One that rests: whether it should be there.
pub(super) async fn judge_paused(
    control: &Arc<Control>,
    orphans: &mut Orphans,
    node: &Node,
    sandbox: &PausedSandbox,
) -> Result<(), ReconcileError> {
    let id = &sandbox.sandbox;
    let Some(row) = judge_paused_unrecorded(control, orphans, node, sandbox).await? else {
        return Ok(());
    };
    match row.state {
        SandboxState::Dead { reason, .. } => control.end_soon(&node.name, id, reason),
        SandboxState::Running { .. } | SandboxState::Paused { .. } => {
            orphans.forget(id);
            if !sandbox.recorded {
                control.records.note(&node.name, id);
            }
            control.note_paused(&as_told(node, sandbox)).await?;
            control.route_as_noted(id, &node.name).await?;
        }
    }
    Ok(())
}

/// The same as [`judge_unrecorded`]: its deadline may have paused what whoever makes it has not written
/// down yet, or never will.
pub(super) async fn judge_paused_unrecorded(
    control: &Arc<Control>,
    orphans: &mut Orphans,
    node: &Node,
    sandbox: &PausedSandbox,
) -> Result<Option<Sandbox>, ReconcileError> {
    let id = &sandbox.sandbox;
    if control.recent.is_doomed(id) {
        control.end_soon(&node.name, id, EndReason::Killed);
        return Ok(None);
    }
    match control.store.sandbox_by_id(id).await? {
        Some(row) if !astray::is_elsewhere(&row, &node.name) => return Ok(Some(row)),
        Some(_) | None if control.starting.contains(id) => {
            orphans.forget(id);
            if control.shared().is_some() {
                orphans.see(&control.config, &as_if_running(sandbox));
            }
        }
        Some(_) => astray::judge(control, orphans, node, &as_if_running(sandbox)),
        None => orphans.see(&control.config, &as_if_running(sandbox)),
    }
    Ok(None)
}

/// For whoever judges both alike.
fn as_if_running(sandbox: &PausedSandbox) -> RunningSandbox {
    RunningSandbox {
        sandbox: sandbox.sandbox.clone(),
        team: sandbox.team.clone(),
        template: sandbox.template.clone(),
        started_at: sandbox.started_at,
        ends_at: sandbox.at,
        on_timeout: OnTimeout::Kill,
        recorded: sandbox.recorded,
        warm: false,
        creator: sandbox.creator.clone(),
        network: None,
    }
}

fn as_told(node: &Node, sandbox: &PausedSandbox) -> Paused {
    Paused {
        node: node.name.clone(),
        sandbox: sandbox.sandbox.clone(),
        ran_since: Some(sandbox.started_at),
        at: sandbox.at,
        kept: sandbox.kept,
        reason: sandbox.reason,
    }
}

impl Control {
    /// Puts the route that the row says, unless it leads elsewhere by now, and counts it as the row
    /// says.
    pub(super) async fn route_as_noted(
        &self,
        id: &SandboxId,
        node: &str,
    ) -> Result<(), ReconcileError> {
        let _one = self.notes.lock(id).await;
        let Some(row) = self.store.sandbox_by_id(id).await? else {
            return Ok(());
        };
        if row.node != node {
            return Ok(());
        }
        match row.state {
            SandboxState::Running { .. } => {
                self.quota.count(&row.team, id);
                self.put_route(&row, false).await;
            }
            SandboxState::Paused { .. } => {
                self.put_route(&row, true).await;
                // One that comes up has its place already.
                if self.transitions.of(id).is_none() {
                    self.quota.give_back(&row.team, id);
                }
            }
            SandboxState::Dead { .. } => {}
        }
        Ok(())
    }

    /// A resume that goes on writes the row itself; if it fails at that, the row is written after it.
    async fn note_running_soon(
        self: &Arc<Self>,
        node: &Node,
        sandbox: &RunningSandbox,
    ) -> Result<(), ReconcileError> {
        // Between two attempts, while the store fails.
        const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];
        let other = self.transitions.of(&sandbox.sandbox);
        if other.is_none() && self.shared().is_none() {
            return self.note_running(&node.name, sandbox).await;
        }
        let (control, node) = (Arc::clone(self), node.name.clone());
        let sandbox = sandbox.clone();
        // Another server's resume may take long; a shutdown leaves it to the next look.
        self.tasks.spawn(TaskKind::Reconciler, async move {
            match other {
                Some(other) => drop(other.over().await),
                None => {
                    control.transitions.over_elsewhere(&sandbox.sandbox).await;
                    tokio::time::sleep(control.config.row_grace).await;
                }
            }
            let [mut pause, longest] = PAUSES;
            while let Err(error) = control.note_running(&node, &sandbox).await {
                let id = &sandbox.sandbox;
                tracing::warn!(
                    sandbox.id = %id, error = chain(&error),
                    "could not note that sandbox {id} runs"
                );
                // Nobody else does so before the node is looked at anew.
                if !matches!(error, ReconcileError::Store(_)) {
                    break;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        });
        Ok(())
    }

    /// The node resumed it and the row says that it is paused: a crash came between.
    async fn note_running(
        self: &Arc<Self>,
        node: &str,
        sandbox: &RunningSandbox,
    ) -> Result<(), ReconcileError> {
        let id = &sandbox.sandbox;
        let _one = self.locks.lock(id).await;
        let _note = self.notes.lock(id).await;
        let Some(row) = self.store.sandbox_by_id(id).await? else {
            return Ok(());
        };
        let from = sandbox.started_at;
        let is_written = match row.state {
            // Of another node it is a copy, which the next look finds.
            _ if row.node != node => return Ok(()),
            SandboxState::Paused { at, .. } if from > at => false,
            SandboxState::Running { .. } => true,
            SandboxState::Paused { .. } | SandboxState::Dead { .. } => return Ok(()),
        };
        if is_written {
            // Whoever wrote it may have had no answer, and have left the route as it was.
            if row.started_at.as_microsecond() == from.as_microsecond() {
                self.quota.count(&row.team, id);
                self.put_route(&row, false).await;
            }
            return Ok(());
        }
        let mut running_max = None;
        if self.shared().is_some() {
            if self.nodes.get(&row.node)?.there.runs_since(id) != Some(from) {
                // It was paused again meanwhile, or ended.
                return Ok(());
            }
            let team = self.store.team_by_id(&row.team).await?;
            running_max = team.map(|team| self.config.limits.of(&team).sandboxes_max);
        }
        let run = NewRun {
            node: &row.node,
            started_at: from,
            ends_at: sandbox.ends_at,
            on_timeout: sandbox.on_timeout,
        };
        let written = self
            .store
            .sandbox_resume(id, row.generation, &run, running_max);
        let generation = match written.await {
            Ok(generation) => generation,
            // Whoever was faster knows better.
            Err(StoreError::Conflict { .. } | StoreError::NodeGone { .. }) => return Ok(()),
            Err(StoreError::TeamFull { .. }) => {
                self.pause_soon(&row.node, id, Kept::Memory);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.quota.count(&row.team, id);
        self.records.note(&row.node, id);
        let row = Sandbox {
            started_at: from,
            on_timeout: sandbox.on_timeout,
            generation,
            ..row
        };
        self.note_resumed(&row, Kept::Memory);
        self.put_route(&row, false).await;
        Ok(())
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
        let set = async {
            control
                .nodes
                .port(&row.node)?
                .set_deadline(id, ends_at)
                .await
        };
        match set.await {
            Ok(()) | Err(NodeError::NotFound(_) | NodeError::Paused(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Control {
    /// A change of its deadline may be written: the node is told what the row says, once the store
    /// answers. One that cannot be reached is told when it is back.
    pub(crate) fn agree_on_deadline_soon(self: &Arc<Self>, id: &SandboxId) {
        let (control, id) = (Arc::clone(self), id.clone());
        self.tasks.spawn(TaskKind::Reconciler, async move {
            let agreed = again(&control.tasks, "could not look for a deadline", || async {
                match agree_on_deadline(&control, &id).await {
                    Err(ReconcileError::Node(_)) => Ok(()),
                    agreed => agreed,
                }
            });
            // It was said; the process ends.
            let _ = agreed.await;
        });
    }
}

/// The backstop of the node's own clock, and of an end whose event was lost.
pub(super) fn end_expired(control: &Arc<Control>, node: &str, alive: &[AliveSandbox]) {
    let now = steady::now();
    let overdue = |row: &&AliveSandbox| {
        let ends_at = match row.state {
            SandboxState::Running { ends_at } => ends_at,
            SandboxState::Paused { .. } | SandboxState::Dead { .. } => return false,
        };
        ends_at + OVERDUE_AFTER < now
    };
    for row in alive.iter().filter(overdue) {
        tracing::warn!(sandbox.id = %row.id, "sandbox {} is past its deadline", row.id);
        match row.on_timeout {
            OnTimeout::Kill => control.end_soon(node, &row.id, EndReason::Expired),
            OnTimeout::Pause(kept) => control.pause_soon(node, &row.id, kept),
        }
    }
}
