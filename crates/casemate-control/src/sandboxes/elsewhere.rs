//! Letting a paused sandbox go on at another node, from its files in the bucket: its own is lost, or has
//! no room for it.
//!
//! ```text
//! choose a node ─▶ it fetches layers and files ─▶ makes it under its id ─▶ row: node, run, generation
//!                                                                           │            │
//!                                     the copy there is ended ◀── conflict ─┘            └─▶ the old one is
//! ```
//!
//! The row changes in one statement, in the generation in which it named what was stored: of two that
//! begin one wins, and whoever lost ends its own copy, at its node alone. What a crash leaves there is
//! ended by whoever watches that node, as the row names another.

use std::sync::Arc;
use std::time::Duration;

use casemate_rpc::{CreateReply, CreateRequest, NodeError};
use casemate_store::{Build, NewRun, Sandbox, StoreError};
use casemate_types::{Kept, SandboxState, Timestamp, chain};

use super::connect::busy;
use super::place::{PlacementError, is_template_missing, may_have_happened};
use super::resume::{ROW_PAUSE, Resume, nothing_to_make};
use super::{ChangeError, SandboxView, Shown};
use crate::Control;
use crate::auth::TeamCaller;
use crate::nodes::Node;
use crate::nodes::reach::Reach;
use crate::transitions::Doing;

/// How long a resume waits for files to be stored because its node has no room.
const STORE_PATIENCE: Duration = Duration::from_secs(45);

/// Why a node that is there does not let one go on that another may.
pub(super) fn is_without_room(error: &PlacementError) -> bool {
    matches!(
        error,
        PlacementError::Node(
            NodeError::Full { .. } | NodeError::DiskFull { .. } | NodeError::QueueFull { .. }
        )
    )
}

impl Control {
    /// One whose node has no room, with its files in the bucket. `None`: it has to wait for that node,
    /// as its processes would be lost elsewhere, or there is no way or no other node.
    pub(super) async fn stored_to_move(&self, row: Sandbox, resume: Resume) -> Option<Sandbox> {
        let only_files = matches!(
            row.state,
            SandboxState::Paused {
                kept: Kept::Files,
                ..
            }
        );
        if self.shared().is_none()
            || resume.with_memory_only
            || !(only_files || resume.from == Kept::Files)
        {
            return None;
        }
        if row.stored_files.is_some() {
            return Some(row);
        }
        let node = self.nodes.get(&row.node).ok()?;
        let storing = async {
            let Some(build) = self.store.build_by_id(&row.build).await? else {
                return Ok(None);
            };
            let others = self.candidates(&build);
            if node.carrier.is_none() || others.iter().all(|other| other.name == row.node) {
                return Ok(None);
            }
            self.store_layers(&node, &build).await?;
            let stored = self.store_pause(&node, &row.id, &row.team, row.generation);
            stored.await.map(Some)
        };
        match tokio::time::timeout(STORE_PATIENCE, storing).await {
            Ok(Ok(Some(files))) => Some(Sandbox {
                stored_files: Some(files),
                ..row
            }),
            Ok(Ok(None)) | Err(_) => None,
            Ok(Err(error)) => {
                tracing::warn!(
                    sandbox.id = %row.id, node = row.node, error = chain(&error),
                    "sandbox {} cannot leave its node, which has no room for it", row.id
                );
                None
            }
        }
    }

    /// From a node that is drained, where it has no processes to lose. `None`: it goes on there, as no
    /// other node takes it, or nothing else is wanted.
    pub(super) async fn leave_drained(
        self: &Arc<Self>,
        caller: &TeamCaller,
        row: &Sandbox,
        resume: Resume,
    ) -> Result<Option<SandboxView>, ChangeError> {
        let node = self.nodes.get(&row.node);
        // Of one that is away it is not known whether it still rests.
        if !node.is_ok_and(|node| node.is_draining() && node.reach() == Reach::Connected) {
            return Ok(None);
        }
        let Some(stored) = self.stored_to_move(row.clone(), resume).await else {
            return Ok(None);
        };
        let but = Some(row.node.as_str());
        match self.go_on_elsewhere(caller, stored, resume, but).await {
            Err(ChangeError::Placement(error)) => {
                tracing::warn!(
                    sandbox.id = %row.id, node = row.node, error = chain(&error),
                    "sandbox {} goes on at its node, which is drained", row.id
                );
                Ok(None)
            }
            done => done.map(Some),
        }
    }

    /// From what is stored of it, at any node but the one that has it still.
    pub(super) async fn go_on_elsewhere(
        self: &Arc<Self>,
        caller: &TeamCaller,
        row: Sandbox,
        resume: Resume,
        but: Option<&str>,
    ) -> Result<SandboxView, ChangeError> {
        let id = row.id.clone();
        let Some(files) = row.stored_files.clone() else {
            return Err(ChangeError::FilesLost {
                sandbox: id,
                node: row.node,
            });
        };
        if resume.with_memory_only {
            let less = NodeError::FilesOnly(id);
            return Err(ChangeError::Placement(less.into()));
        }
        let max = caller.limits.sandboxes_max;
        let place = self.take_place(&row.team, &id, max).await?;
        let on_timeout = resume.on_timeout.unwrap_or(row.on_timeout);
        let request = CreateRequest {
            files: Some(files.clone()),
            ..self.as_made(&row, resume.life, on_timeout).await?
        };
        let build = self.store.build_by_id(&row.build).await?;
        let build = Build {
            files: Some(files.clone()),
            ..build.unwrap_or_else(|| nothing_to_make(&row))
        };
        let mut asking = self.asking(&build, but);
        while let Some(node) = asking.next().await {
            // Until the row names it, it is ours to judge.
            let _starting = self.starting.enter(&id, &node);
            match self.copy_to(&node, &request, &build).await {
                Ok(reply) => {
                    let began = self.began_at(&node, row, &request, reply, resume.life, max);
                    let (row, ends_at) = began.await?;
                    self.keep_place(place);
                    self.drop_files_at(&node.name, vec![files]);
                    return Ok(self.view_as(row, Shown::Running, ends_at));
                }
                Err(PlacementError::Node(NodeError::Exists(_))) => {
                    // Another server was faster, or somebody left a copy there, which goes.
                    tokio::time::sleep(ROW_PAUSE).await;
                    return Err(busy(&id, Doing::Resuming));
                }
                Err(error) => {
                    tracing::warn!(
                        sandbox.id = %id, team.id = %row.team, node = node.name,
                        error = chain(&error),
                        "could not resume sandbox {id} of node {} on node {}", row.node, node.name
                    );
                    asking.refused(error);
                }
            }
        }
        Err(ChangeError::Placement(asking.end()))
    }

    /// Has a node make it; it fetches what it lacks.
    async fn copy_to(
        self: &Arc<Self>,
        node: &Arc<Node>,
        request: &CreateRequest,
        build: &Build,
    ) -> Result<CreateReply, PlacementError> {
        let refused = match self.make_copy(node, request.clone()).await {
            Err(error) if is_template_missing(&error) => error,
            made => return made,
        };
        match self.bring(node, build, request.sandbox.as_str()).await {
            Ok(true) => self.make_copy(node, request.clone()).await,
            Ok(false) => Err(refused),
            Err(error) => {
                tracing::warn!(
                    sandbox.id = %request.sandbox, node = node.name, error = chain(&error),
                    "node {} lacks what sandbox {} goes on with", node.name, request.sandbox
                );
                Err(refused)
            }
        }
    }

    async fn make_copy(
        self: &Arc<Self>,
        node: &Node,
        request: CreateRequest,
    ) -> Result<CreateReply, PlacementError> {
        let sandbox = request.sandbox.clone();
        let limit = self.config.create_timeout;
        match tokio::time::timeout(limit, node.port.create(request)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                node.create_failed();
                // While it is ours to resume: later there may be another one of it.
                if may_have_happened(&error) {
                    self.end_copy_now(&node.name, &sandbox).await;
                }
                Err(error.into())
            }
            Err(_) => {
                node.create_failed();
                self.end_copy_now(&node.name, &sandbox).await;
                Err(PlacementError::Timeout(limit))
            }
        }
    }

    /// It serves at another node: its row names that from now on, or it is ended there again.
    async fn began_at(
        self: &Arc<Self>,
        node: &Node,
        row: Sandbox,
        request: &CreateRequest,
        reply: CreateReply,
        life: Duration,
        sandboxes_max: u32,
    ) -> Result<(Sandbox, Timestamp), ChangeError> {
        let (id, startup) = (row.id.clone(), request.startup.as_ref());
        if let Err(error) = self.started(&node.name, &id, startup).await {
            // Its files are its owner's all the same.
            tracing::warn!(
                sandbox.id = %id, error = error.for_operators(),
                "sandbox {id} goes on without the start command of its template"
            );
        }
        let ends_at = self.life_from_now(&node.name, &id, startup, life, reply.ends_at);
        let run = NewRun {
            node: &node.name,
            started_at: reply.started_at,
            ends_at: ends_at.await,
            on_timeout: request.on_timeout,
        };
        // What is told of it at the same time comes before or after row and route.
        let one = self.notes.lock(&id).await;
        let running_max = self.running_max(sandboxes_max);
        let written = self
            .store
            .sandbox_resume(&id, row.generation, &run, running_max);
        let generation = match written.await {
            Ok(generation) => generation,
            // It went on where it was or at a third node, or was ended, or this node was removed: what is
            // here is nobody's.
            Err(StoreError::Conflict { .. } | StoreError::NodeGone { .. }) => {
                self.kill_copy(&node.name, &id).await;
                return Err(busy(&id, Doing::Resuming));
            }
            Err(error @ StoreError::TeamFull { .. }) => {
                self.kill_copy(&node.name, &id).await;
                return Err(error.into());
            }
            // Or it was written.
            Err(error) => {
                self.end_copy(&node.name, &id);
                return Err(error.into());
            }
        };
        let run_ends_at = run.ends_at;
        node.create_succeeded(row.resources.memory_mib);
        self.records.note(&node.name, &id);
        let from = row.node.clone();
        let row = Sandbox {
            node: node.name.clone(),
            generation,
            on_timeout: run.on_timeout,
            started_at: run.started_at,
            state: SandboxState::Running {
                ends_at: run.ends_at,
            },
            stored_files: None,
            ..row
        };
        self.note_resumed(&row, Kept::Files);
        self.put_route(&row, false).await;
        drop(one);
        self.end_copy(&from, &id);
        if let Some((reason, at)) = self.recent.end_of(&id, &node.name)
            && at >= run.started_at
        {
            // It ended before its row named this node.
            self.note_ended(&node.name, &id, reason, at).await?;
        }
        tracing::info!(
            sandbox.id = %id, team.id = %row.team, from, node = node.name,
            "sandbox {id} of node {from} was resumed on node {}", node.name
        );
        Ok((row, run_ends_at))
    }
}
