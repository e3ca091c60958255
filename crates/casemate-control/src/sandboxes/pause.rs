//! Pausing a sandbox.
//!
//! Node first, whose journal then says so for good; a crash before the row is written is found by
//! the reconciler.

use std::io;
use std::time::Duration;

use casemate_failpoint::{self as failpoint, Point};
use casemate_rpc::{NodeError, PauseReply, SandboxStream};
use casemate_store::{Sandbox, StoreError};
use casemate_types::{Kept, PauseReason, SandboxId, SandboxState, Timestamp, chain, steady};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{ChangeError, stands};
use crate::Control;
use crate::auth::TeamCaller;
use crate::transitions::{Doing, Turn};

/// What a client asks of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PauseSandbox {
    pub kept: Kept,
    /// Only if its agent answers.
    pub healthy: bool,
}

/// What became of a sandbox, as the node tells it.
#[derive(Debug, Clone)]
pub(crate) struct Paused {
    /// The one that tells it.
    pub(crate) node: String,
    pub(crate) sandbox: SandboxId,
    /// When the run before it began, where that was told.
    pub(crate) ran_since: Option<Timestamp>,
    pub(crate) at: Timestamp,
    pub(crate) kept: Kept,
    pub(crate) reason: PauseReason,
}

/// How long the agent has to answer.
const HEALTH_PATIENCE: Duration = Duration::from_secs(2);
/// Of its answer only the first line counts.
const HEALTH_BYTES: usize = 64;
const ENVD_PORT: u16 = 49983;

impl Control {
    /// Pauses a running sandbox of the caller's team; a pause that goes on is joined.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn pause(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
        ask: PauseSandbox,
    ) -> Result<(), ChangeError> {
        let Some(turn) = self.turn_to_pause(caller, id).await? else {
            return Ok(());
        };
        self.pause_in_turn(caller, id, ask).await?;
        turn.done().await;
        Ok(())
    }

    async fn pause_in_turn(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
        ask: PauseSandbox,
    ) -> Result<(), ChangeError> {
        let _one = self.locks.lock(id).await;
        let not_found = || ChangeError::NotFound(id.clone());
        let row = self.own_row(caller, id).await?.ok_or_else(not_found)?;
        match stands(&row, steady::now()).ok_or_else(not_found)? {
            SandboxState::Running { .. } => {}
            // The node is at it, or was a moment ago: joined.
            SandboxState::Paused { kept, .. } if super::connect::runs(&row.state) => {
                let reply = self.ask_node_to_pause(&row.node, id, kept).await?;
                return self
                    .record_pause(&row.node, id, reply, PauseReason::Expired)
                    .await;
            }
            SandboxState::Paused { .. } => return Err(ChangeError::AlreadyPaused(id.clone())),
            SandboxState::Dead { .. } => return Err(not_found()),
        }
        if (ask.healthy || ask.kept == Kept::Files) && !self.agent_answers(&row).await? {
            return Err(ChangeError::Unhealthy(id.clone()));
        }
        let reply = self.ask_node_to_pause(&row.node, id, ask.kept).await?;
        self.record_pause(&row.node, id, reply, PauseReason::Asked)
            .await
    }

    /// `None`: somebody else's pause went on, and has paused it.
    async fn turn_to_pause(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
    ) -> Result<Option<Turn>, ChangeError> {
        let not_found = || ChangeError::NotFound(id.clone());
        loop {
            let row = self.own_row(caller, id).await?.ok_or_else(not_found)?;
            stands(&row, steady::now()).ok_or_else(not_found)?;
            match self.transitions.begin(id, Doing::Pausing).await {
                Ok(turn) => return Ok(Some(turn)),
                Err(other) if other.doing == Doing::Killing => return Err(not_found()),
                Err(other) => {
                    let is_pause = other.doing == Doing::Pausing;
                    let is_done = match other.over().await {
                        Some(done) => done,
                        // Another server's; the row says what came of it.
                        None => self
                            .own_row(caller, id)
                            .await?
                            .is_some_and(|row| matches!(row.state, SandboxState::Paused { .. })),
                    };
                    if is_pause && is_done {
                        return Ok(None);
                    }
                }
            }
        }
    }

    pub(crate) async fn ask_node_to_pause(
        &self,
        node: &str,
        id: &SandboxId,
        kept: Kept,
    ) -> Result<PauseReply, ChangeError> {
        // What comes of it later is told by an event.
        let limit = self.config.create_timeout;
        let paused = async { self.nodes.port(node)?.pause(id, kept).await };
        let paused = tokio::time::timeout(limit, paused).await;
        let reply = match paused.unwrap_or(Err(NodeError::Unreachable)) {
            Ok(reply) => reply,
            Err(NodeError::NotFound(_)) => return Err(ChangeError::NotFound(id.clone())),
            Err(source) => {
                tracing::warn!(
                    sandbox.id = %id, error = chain(&source), "could not pause sandbox {id}"
                );
                return Err(self.not_done(node, id, source).await);
            }
        };
        failpoint::hit(Point::PauseAnswered);
        Ok(reply)
    }

    pub(crate) async fn record_pause(
        &self,
        node: &str,
        id: &SandboxId,
        reply: PauseReply,
        reason: PauseReason,
    ) -> Result<(), ChangeError> {
        self.note_paused(&Paused {
            node: node.to_owned(),
            sandbox: id.clone(),
            ran_since: None,
            at: reply.at,
            kept: reply.kept,
            reason,
        })
        .await?;
        failpoint::hit(Point::PauseRecorded);
        Ok(())
    }

    /// Takes a pause, or that less is kept of a paused one, down everywhere: store, catalog, quota.
    /// Idempotent; what a younger run has overtaken changes nothing.
    pub(crate) async fn note_paused(&self, paused: &Paused) -> Result<(), StoreError> {
        let id = &paused.sandbox;
        // A pause is heard of twice, by the node's answer and by its event.
        let _one = self.notes.lock(id).await;
        loop {
            let Some(mut row) = self.store.sandbox_by_id(id).await? else {
                return Ok(());
            };
            if !is_news(&row, paused) {
                return Ok(());
            }
            let noted = self
                .store
                .sandbox_pause(id, row.generation, paused.at, paused.kept)
                .await;
            match noted {
                Ok(generation) => row.generation = generation,
                // A change of the deadline came between: look again.
                Err(StoreError::Conflict { .. }) => continue,
                Err(error) => return Err(error),
            }
            if super::connect::runs(&row.state) {
                self.put_route(&row, true).await;
                self.quota.give_back(&row.team, id);
            }
            // What less is kept of later is told of with the time of the pause.
            let at = match super::connect::runs(&row.state) {
                true => paused.at,
                false => steady::now(),
            };
            self.note_pause(&row, paused, at);
            tracing::debug!(
                sandbox.id = %id, team.id = %row.team, reason = ?paused.reason, kept = ?paused.kept,
                "sandbox {id} is paused"
            );
            return Ok(());
        }
    }

    /// Where its traffic goes. The catalog is a cache that the node's word fills again.
    pub(crate) async fn put_route(&self, row: &Sandbox, asleep: bool) {
        let route = casemate_catalog::Route {
            node: row.node.clone(),
            asleep,
            ingress: row.ingress.clone(),
            generation: row.generation,
            traffic_token: self.keys.traffic_token_hash(&row.id, &row.ingress),
        };
        if let Err(error) = self.catalog.route_put(&row.id, route).await {
            tracing::error!(
                sandbox.id = %row.id, error = chain(&error),
                "could not put the route of sandbox {}", row.id
            );
        }
    }

    /// Whether the agent answers. Of what it says nothing counts but the status of its answer.
    /// [`ChangeError::NotFound`]: another server ended it just now.
    async fn agent_answers(&self, row: &Sandbox) -> Result<bool, ChangeError> {
        let asked = tokio::time::timeout(HEALTH_PATIENCE, async {
            let node = self.nodes.port(&row.node)?;
            let stream = node.dial(&row.id, ENVD_PORT).await?;
            let Ok(stream) = stream.into_stream() else {
                return Ok(false);
            };
            Ok(health(stream).await.unwrap_or(false))
        });
        match asked.await {
            Ok(Err(NodeError::NotFound(id))) => Err(ChangeError::NotFound(id)),
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(_)) | Err(_) => Ok(false),
        }
    }
}

async fn health(mut agent: SandboxStream) -> io::Result<bool> {
    agent
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut line = Vec::with_capacity(HEALTH_BYTES);
    let mut limited = agent.take(HEALTH_BYTES as u64);
    while !line.contains(&b'\n') && limited.read_buf(&mut line).await? > 0 {}
    Ok(line.starts_with(b"HTTP/1.1 2"))
}

/// Whether it changes what the row says. Where that names another node, a copy was paused.
fn is_news(row: &Sandbox, paused: &Paused) -> bool {
    if row.node != paused.node {
        return false;
    }
    match row.state {
        SandboxState::Running { .. } => paused.at >= row.started_at,
        SandboxState::Paused { at, kept } => {
            let less = kept == Kept::Memory && paused.kept == Kept::Files;
            let (told, at) = (paused.at.as_microsecond(), at.as_microsecond());
            let known = row.started_at.as_microsecond();
            let later_run = |since: Timestamp| since.as_microsecond() > known;
            // A run that was never written down came between, and what is stored of the former pause is
            // not what it left.
            let is_another = told > at && paused.ran_since.is_some_and(later_run);
            is_another || (less && told >= at)
        }
        SandboxState::Dead { .. } => false,
    }
}
