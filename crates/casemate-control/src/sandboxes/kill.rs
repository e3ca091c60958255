//! Ending a sandbox.

use casemate_failpoint::{self as failpoint, Point};
use casemate_rpc::NodeError;
use casemate_store::{Sandbox, StoreError};
use casemate_types::{EndReason, SandboxId, SandboxState, Timestamp, chain, steady};

use super::{ChangeError, stands};
use crate::Control;
use crate::auth::TeamCaller;
use crate::nodes::reach::Reach;
use crate::transitions::Doing;

impl Control {
    /// Ends a sandbox of the caller's team; its processes and its route are gone on return. One
    /// that somebody else ended while this call waited is success.
    pub async fn kill(&self, caller: &TeamCaller, id: &SandboxId) -> Result<(), ChangeError> {
        let not_found = || ChangeError::NotFound(id.clone());
        let row = self.own_row_anywhere(caller, id).await?;
        let row = row.ok_or_else(not_found)?;
        stands(&row, steady::now()).ok_or_else(not_found)?;
        self.end_everywhere(&row, EndReason::Killed).await
    }

    /// Whether it is being ended by a call: its processes may be gone, and its route is not yet.
    pub fn is_being_killed(&self, id: &SandboxId) -> bool {
        let under_way = self.transitions.of(id);
        under_way.is_some_and(|change| change.doing == Doing::Killing)
    }

    /// Ends one that was paused before that, unless it has been resumed since.
    pub(crate) async fn end_paused(
        &self,
        row: &Sandbox,
        reason: EndReason,
        before: Timestamp,
    ) -> Result<(), ChangeError> {
        let turn = self.transitions.begin(&row.id, Doing::Killing).await;
        let Ok(_turn) = turn else { return Ok(()) };
        let now = self.store.sandbox_by_id(&row.id).await?;
        let is_due =
            |row: &Sandbox| matches!(row.state, SandboxState::Paused { at, .. } if at < before);
        let Some(row) = now.filter(is_due) else {
            return Ok(());
        };
        // The row first: turns are in Redis, which may be away, and another server may let it go on
        // meanwhile. Its node hears what the row says when they are compared, if not now.
        let at = steady::now();
        match self
            .store
            .sandbox_end(&row.id, row.generation, reason, at)
            .await
        {
            Ok(_) => self.note_end(&row, reason, at),
            Err(StoreError::Conflict { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.end_in_turn(&row, reason).await
    }

    /// Node first: while it runs, the store says so and a failed kill can be tried again.
    pub(crate) async fn end_everywhere(
        &self,
        row: &Sandbox,
        reason: EndReason,
    ) -> Result<(), ChangeError> {
        let id = &row.id;
        let _turn = loop {
            match self.transitions.begin(id, Doing::Killing).await {
                Ok(turn) => break turn,
                Err(other) => {
                    let doing = other.doing;
                    let over = tokio::time::timeout(self.config.create_timeout, other.over());
                    if over.await.is_err() {
                        return Err(super::connect::busy(id, doing));
                    }
                    let now = self.store.sandbox_by_id(id).await?;
                    if now.is_none_or(|row| matches!(row.state, SandboxState::Dead { .. })) {
                        return Ok(());
                    }
                }
            }
        };
        self.end_in_turn(row, reason).await
    }

    async fn end_in_turn(&self, row: &Sandbox, reason: EndReason) -> Result<(), ChangeError> {
        let id = &row.id;
        let _one = self.locks.lock(id).await;
        let mut row = row.clone();
        loop {
            // A node that is lost is told when it returns: its row says so.
            if self.node_reach(&row.node).await? != Reach::Lost {
                match self.kill_at_its_node(&row, reason).await {
                    // It may have been given up just now.
                    Ok(()) | Err(ChangeError::Lost { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            failpoint::hit(Point::KillAnswered);
            let word = Word::Ours(Some(&row));
            let noted = self.note_row_ended(&row.node, id, word, reason, steady::now());
            match noted.await? {
                Noted::Now | Noted::Before => break,
                // Another server let it go on at another node meanwhile.
                Noted::Elsewhere(now) => row = *now,
            }
        }
        failpoint::hit(Point::KillRecorded);
        Ok(())
    }

    async fn kill_at_its_node(&self, row: &Sandbox, reason: EndReason) -> Result<(), ChangeError> {
        let id = &row.id;
        let killed = async { self.nodes.port(&row.node)?.kill(id, reason).await };
        match killed.await {
            Ok(()) | Err(NodeError::NotFound(_)) => Ok(()),
            Err(source) => Err(self.not_done(&row.node, id, source).await),
        }
    }

    /// Takes the end of a sandbox at a node down everywhere: store, catalog, quota. Idempotent; an end
    /// that is noted already keeps its reason, and where the row names another node it was the end of a
    /// copy. Whether this call noted it.
    pub(crate) async fn note_ended(
        &self,
        node: &str,
        id: &SandboxId,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let word = Word::Ours(None);
        let noted = self.note_row_ended(node, id, word, reason, at).await?;
        Ok(matches!(noted, Noted::Now))
    }

    /// The same of an end that the node told, `at` by its clock: one from before the run that the row
    /// names was a copy's, which went before the sandbox came to that node.
    pub(crate) async fn note_told_end(
        &self,
        node: &str,
        id: &SandboxId,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let noted = self
            .note_row_ended(node, id, Word::Told, reason, at)
            .await?;
        Ok(matches!(noted, Noted::Now))
    }

    async fn note_row_ended(
        &self,
        node: &str,
        id: &SandboxId,
        word: Word<'_>,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Noted, StoreError> {
        self.warm.ended(id);
        // Before the row is read: a create that writes its row after that look finds this.
        self.recent.ended(id, node, reason, at);
        // A kill hears of the end twice, by the node's answer and by its event.
        let _one = self.notes.lock(id).await;
        if self.recent.is_end_noted(id, node) {
            return Ok(Noted::Before);
        }
        let mut known = match word {
            Word::Ours(row) => row.cloned(),
            Word::Told => None,
        };
        loop {
            let row = match known.take() {
                Some(row) => row,
                None => match self.store.sandbox_by_id(id).await? {
                    Some(row) => row,
                    None => return Ok(Noted::Before),
                },
            };
            if row.node != node {
                return Ok(match row.state {
                    SandboxState::Dead { .. } => Noted::Before,
                    SandboxState::Running { .. } | SandboxState::Paused { .. } => {
                        Noted::Elsewhere(Box::new(row))
                    }
                });
            }
            let lives = !matches!(row.state, SandboxState::Dead { .. });
            let is_before = at.as_microsecond() < row.started_at.as_microsecond();
            if lives && is_before && matches!(word, Word::Told) {
                return Ok(Noted::Before);
            }
            self.remove_route(&row, row.generation).await;
            let noted = match row.state {
                SandboxState::Dead { .. } => false,
                SandboxState::Running { .. } | SandboxState::Paused { .. } => {
                    let end = self.store.sandbox_end(id, row.generation, reason, at).await;
                    match end {
                        Ok(generation) => {
                            // Whoever read the row before that may have put it back meanwhile.
                            self.remove_route(&row, generation).await;
                            true
                        }
                        // A change of the deadline came between: look again.
                        Err(StoreError::Conflict { .. }) => continue,
                        Err(error) => return Err(error),
                    }
                }
            };
            self.recent.end_noted(id, node);
            self.quota.give_back(&row.team, id);
            if noted {
                self.note_end(&row, reason, at);
                tracing::debug!(
                    sandbox.id = %id, team.id = %row.team, reason = ?reason,
                    "sandbox {id} ended"
                );
            }
            return Ok(match noted {
                true => Noted::Now,
                false => Noted::Before,
            });
        }
    }
}

/// Whose word it is that it ended.
#[derive(Clone, Copy)]
enum Word<'a> {
    /// Of this server, with the row where it was read a moment ago: that spares reading it again unless
    /// it has changed.
    Ours(Option<&'a Sandbox>),
    /// The node's.
    Told,
}

/// What became of the word that it ended.
enum Noted {
    Now,
    /// It was dead before, or has no row, or what ended was there before this run.
    Before,
    /// It lives at another node.
    Elsewhere(Box<Sandbox>),
}

impl Control {
    async fn remove_route(&self, row: &Sandbox, generation: u64) {
        let (id, node) = (&row.id, &row.node);
        let removed = self.catalog.route_remove(id, node, generation);
        if let Err(error) = removed.await {
            tracing::error!(sandbox.id = %id, error = chain(&error), "could not remove the route of {id}");
        }
    }
}

impl Control {
    /// Reads a node's answer to a change. One that the node does not know has ended: its event, or
    /// the reconciler, says how.
    pub(super) async fn told(
        &self,
        node: &str,
        id: &SandboxId,
        answer: Result<(), NodeError>,
    ) -> Result<(), ChangeError> {
        match answer {
            Ok(()) => Ok(()),
            Err(NodeError::NotFound(_)) => Err(ChangeError::NotFound(id.clone())),
            // Its deadline came a moment ago.
            Err(NodeError::Paused(_)) => Err(ChangeError::Busy {
                sandbox: id.clone(),
                doing: Doing::Pausing,
            }),
            Err(source) => Err(self.not_done(node, id, source).await),
        }
    }
}
