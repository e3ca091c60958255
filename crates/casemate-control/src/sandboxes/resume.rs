//! Letting a paused sandbox go on.
//!
//! Node first: while it is paused the store says so, and a resume that failed can be tried again. A
//! crash in between leaves one that runs and a row that says paused; the reconciler believes the
//! node, whose run is the younger. One whose node is lost or full goes on elsewhere
//! ([`super::elsewhere`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_failpoint::{self as failpoint, Point};
use casemate_rpc::{CreateRequest, NodeError, ResumeReply, ResumeRequest};
use casemate_store::{Build, NewRun, Sandbox, StoreError};
use casemate_types::{
    Distribution, EndReason, Kept, OnTimeout, PauseReason, SandboxId, SandboxState, chain, steady,
};

use super::connect::{WAIT_MAX, busy, runs};
use super::create::millis;
use super::elsewhere::is_without_room;
use super::place::PlacementError;
use super::{ChangeError, SandboxView, Shown, stands};
use crate::Control;
use crate::auth::TeamCaller;
use crate::nodes::reach::Reach;
use crate::reconcile::astray::is_elsewhere;
use crate::transitions::Doing;

/// Between a node's word that another server resumed it and the next look at the row.
pub(super) const ROW_PAUSE: Duration = Duration::from_millis(50);

/// How a paused sandbox is to go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resume {
    pub(crate) life: Duration,
    /// [`Kept::Files`]: it starts anew whatever is kept.
    pub(crate) from: Kept,
    /// Not where its processes are not kept any more.
    pub(crate) with_memory_only: bool,
    /// What happens at the new deadline; `None` is what happened at the old one.
    pub(crate) on_timeout: Option<OnTimeout>,
}

impl Control {
    /// A paused sandbox goes on; one that runs already is refused (`POST …/resume`).
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn resume(
        self: &Arc<Self>,
        caller: &TeamCaller,
        id: &SandboxId,
        timeout: Duration,
        from: Kept,
        auto_pause: Option<bool>,
    ) -> Result<SandboxView, ChangeError> {
        if timeout.is_zero() {
            return Err(ChangeError::TimeoutZero);
        }
        if timeout > caller.limits.life_max() {
            return Err(ChangeError::TimeoutTooLong {
                hours: caller.limits.life_hours_max,
            });
        }
        let not_found = || ChangeError::NotFound(id.clone());
        let (begun, mut was_joined) = (Instant::now(), false);
        loop {
            let row = self.own_row(caller, id).await?.ok_or_else(not_found)?;
            stands(&row, steady::now()).ok_or_else(not_found)?;
            if let Some(other) = self.transitions.of(id) {
                match other.doing {
                    Doing::Killing => return Err(not_found()),
                    Doing::Snapshotting => return Err(busy(id, Doing::Snapshotting)),
                    Doing::Resuming if from == Kept::Files => {
                        return Err(ChangeError::StartInFlight(id.clone()));
                    }
                    Doing::Pausing | Doing::Resuming => {}
                }
                let joined = other.doing == Doing::Resuming;
                other.over().await;
                let row = self.own_row(caller, id).await?.ok_or_else(not_found)?;
                match self.view(row, steady::now()) {
                    // All who ask for one start get what came of it.
                    Some(view) if joined && view.shown == Shown::Running => return Ok(view),
                    _ => continue,
                }
            }
            let on_timeout = auto_pause.map(|pause| match pause {
                true => OnTimeout::Pause(Kept::Memory),
                false => OnTimeout::Kill,
            });
            let resume = Resume {
                life: timeout,
                from,
                with_memory_only: false,
                on_timeout,
            };
            return match self.resume_or_running(caller, id, resume).await {
                Ok(Some(view)) => Ok(view),
                // All who asked for one start get what came of it.
                Ok(None) if was_joined => {
                    let row = self.own_row(caller, id).await?.ok_or_else(not_found)?;
                    let view = self.view(row, steady::now());
                    view.ok_or_else(not_found)
                }
                Ok(None) => Err(ChangeError::AlreadyRunning(id.clone())),
                Err(ChangeError::Busy { doing, .. }) if begun.elapsed() < WAIT_MAX => {
                    match doing {
                        Doing::Killing => return Err(not_found()),
                        Doing::Snapshotting => return Err(busy(id, doing)),
                        Doing::Resuming if from == Kept::Files => {
                            return Err(ChangeError::StartInFlight(id.clone()));
                        }
                        Doing::Resuming => was_joined = true,
                        Doing::Pausing => {}
                    }
                    continue;
                }
                Err(error) => Err(error),
            };
        }
    }

    /// Lets a paused sandbox of the caller's team go on; `None`: it runs. [`ChangeError::Busy`] when
    /// another change began first; one of another server is over then.
    pub(crate) async fn resume_or_running(
        self: &Arc<Self>,
        caller: &TeamCaller,
        id: &SandboxId,
        resume: Resume,
    ) -> Result<Option<SandboxView>, ChangeError> {
        let turn = match self.transitions.begin(id, Doing::Resuming).await {
            Ok(turn) => turn,
            Err(other) => {
                let doing = other.doing;
                if other.is_anothers() {
                    // What takes longer is for the caller to find out.
                    let _ = tokio::time::timeout(WAIT_MAX, other.over()).await;
                }
                return Err(busy(id, doing));
            }
        };
        let one = self.locks.lock(id).await;
        let not_found = || ChangeError::NotFound(id.clone());
        let row = self.own_row(caller, id).await?.ok_or_else(not_found)?;
        let state = stands(&row, steady::now()).ok_or_else(not_found)?;
        if runs(&state) {
            return Ok(None);
        }
        let row = self.settled(row).await?;
        let view = self.go_on(caller, row, resume).await?;
        drop(one);
        turn.done().await;
        Ok(Some(view))
    }

    /// One whose deadline has come and whose pause was not told of yet: it is paused on return.
    async fn settled(&self, row: Sandbox) -> Result<Sandbox, ChangeError> {
        let OnTimeout::Pause(kept) = row.on_timeout else {
            return Ok(row);
        };
        if !runs(&row.state) {
            return Ok(row);
        }
        let not_found = || ChangeError::NotFound(row.id.clone());
        let reply = self.ask_node_to_pause(&row.node, &row.id, kept).await?;
        self.record_pause(&row.node, &row.id, reply, PauseReason::Expired)
            .await?;
        let row = self.store.sandbox_by_id(&row.id).await?;
        row.ok_or_else(not_found)
    }

    async fn go_on(
        self: &Arc<Self>,
        caller: &TeamCaller,
        row: Sandbox,
        resume: Resume,
    ) -> Result<SandboxView, ChangeError> {
        let own = row.node.clone();
        if self.node_reach(&own).await? == Reach::Lost {
            let but = Some(own.as_str());
            return self.go_on_elsewhere(caller, row, resume, but).await;
        }
        if let Some(view) = self.leave_drained(caller, &row, resume).await? {
            return Ok(view);
        }
        match self.go_on_there(caller, row.clone(), resume).await {
            Err(ChangeError::Placement(full)) if is_without_room(&full) => {
                match self.stored_to_move(row, resume).await {
                    Some(stored) => {
                        let but = Some(own.as_str());
                        self.go_on_elsewhere(caller, stored, resume, but).await
                    }
                    None => Err(ChangeError::Placement(full)),
                }
            }
            // Its disk is another one: it may as well come back there.
            Err(ChangeError::FilesLost { .. }) => {
                self.go_on_elsewhere(caller, row, resume, None).await
            }
            // It may have been given up just now, or removed.
            Err(ChangeError::Lost { .. }) => {
                let but = Some(own.as_str());
                self.go_on_elsewhere(caller, row, resume, but).await
            }
            done => done,
        }
    }

    /// At its node. [`ChangeError::Lost`]: that is lost.
    async fn go_on_there(
        self: &Arc<Self>,
        caller: &TeamCaller,
        row: Sandbox,
        resume: Resume,
    ) -> Result<SandboxView, ChangeError> {
        let id = row.id.clone();
        let max = caller.limits.sandboxes_max;
        let place = self.take_place(&row.team, &id, max).await?;
        let on_timeout = resume.on_timeout.unwrap_or(row.on_timeout);
        let request = ResumeRequest {
            sandbox: self.as_made(&row, resume.life, on_timeout).await?,
            from: resume.from,
            with_memory_only: resume.with_memory_only,
        };
        let startup = request.sandbox.startup.clone();
        let reply = self.ask_node_to_resume(&row, request).await?;
        failpoint::hit(Point::ResumeAnswered);
        if reply.from == Kept::Files
            && let Err(error) = self.started(&row.node, &id, startup.as_ref()).await
        {
            // Its files are its owner's all the same.
            tracing::warn!(
                sandbox.id = %id, error = error.for_operators(),
                "sandbox {id} goes on without the start command of its template"
            );
        }
        let ends_at =
            self.life_from_now(&row.node, &id, startup.as_ref(), resume.life, reply.ends_at);
        let reply = ResumeReply {
            ends_at: ends_at.await,
            ..reply
        };
        // What is told of its pause at the same time comes before or after row and route.
        let one = self.notes.lock(&id).await;
        let recorded = self.record_resume(&row, &reply, on_timeout, max).await;
        let generation = match recorded {
            Ok(generation) => generation,
            Err(ChangeError::Quota(full)) => {
                drop(one);
                self.rest_again(&row, &reply).await;
                return Err(full.into());
            }
            Err(error) => return Err(error),
        };
        self.keep_place(place);
        let row = Sandbox {
            generation,
            on_timeout,
            started_at: reply.started_at,
            state: SandboxState::Running {
                ends_at: reply.ends_at,
            },
            ..row
        };
        failpoint::hit(Point::ResumeRecorded);
        if reply.from == Kept::Files {
            self.records.note(&row.node, &id);
        }
        self.note_resumed(&row, reply.from);
        self.put_route(&row, false).await;
        drop(one);
        tracing::debug!(
            sandbox.id = %id, team.id = %row.team, from = ?reply.from, "sandbox {id} was resumed"
        );
        Ok(self.view_as(row, Shown::Running, reply.ends_at))
    }

    /// The team's last place was another's: it is as it was before.
    async fn rest_again(&self, row: &Sandbox, reply: &ResumeReply) {
        let paused = async {
            let paused = self
                .ask_node_to_pause(&row.node, &row.id, reply.from)
                .await?;
            self.record_pause(&row.node, &row.id, paused, PauseReason::Asked)
                .await
        };
        if let Err(error) = paused.await {
            tracing::warn!(
                sandbox.id = %row.id, error = chain(&error),
                "sandbox {} runs, though its team has no place for it", row.id
            );
        }
    }

    /// What is told of its pause may come in between: that its processes were given up for this.
    async fn record_resume(
        self: &Arc<Self>,
        row: &Sandbox,
        reply: &ResumeReply,
        on_timeout: OnTimeout,
        sandboxes_max: u32,
    ) -> Result<u64, ChangeError> {
        let running_max = self.running_max(sandboxes_max);
        let (id, mut generation) = (&row.id, row.generation);
        let run = NewRun {
            node: &row.node,
            started_at: reply.started_at,
            ends_at: reply.ends_at,
            on_timeout,
        };
        loop {
            let written = self
                .store
                .sandbox_resume(id, generation, &run, running_max)
                .await;
            match written {
                Ok(generation) => return Ok(generation),
                // It rests, as whoever removed the node found it. What runs there is nobody's, and is
                // ended once the row names another node: its end would be taken for the sandbox's.
                Err(StoreError::NodeGone { node }) => {
                    let sandbox = id.clone();
                    return Err(ChangeError::Lost { sandbox, node });
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let now = self.store.sandbox_by_id(id).await?;
            if let Some(now) = &now
                && is_elsewhere(now, &row.node)
            {
                // Another server was faster, at another node: what runs here is a copy.
                self.kill_copy(&row.node, id).await;
                return Err(busy(id, Doing::Resuming));
            }
            match now.map(|row| (row.state, row.started_at, row.generation)) {
                Some((SandboxState::Paused { .. }, _, now)) if now != generation => {
                    generation = now;
                }
                // The reconciler was faster.
                Some((SandboxState::Running { .. }, started_at, now))
                    if started_at.as_microsecond() == reply.started_at.as_microsecond() =>
                {
                    return Ok(now);
                }
                _ => return Err(ChangeError::NotFound(id.clone())),
            }
        }
    }

    async fn ask_node_to_resume(
        &self,
        row: &Sandbox,
        request: ResumeRequest,
    ) -> Result<ResumeReply, ChangeError> {
        let limit = self.config.create_timeout;
        let id = &row.id;
        let resumed = async { self.nodes.port(&row.node)?.resume(request).await };
        match tokio::time::timeout(limit, resumed).await {
            Ok(Ok(reply)) => Ok(reply),
            // Its disk is another one.
            Ok(Err(NodeError::NotFound(_))) if row.stored_files.is_some() => {
                Err(ChangeError::FilesLost {
                    sandbox: id.clone(),
                    node: row.node.clone(),
                })
            }
            Ok(Err(NodeError::NotFound(_))) => {
                // Nowhere else either.
                let now = steady::now();
                self.note_ended(&row.node, id, EndReason::Lost, now).await?;
                Err(ChangeError::NotFound(id.clone()))
            }
            Ok(Err(NodeError::Exists(_))) if self.shared().is_some() => {
                // Another server was faster; its row says so in a moment.
                tokio::time::sleep(ROW_PAUSE).await;
                Err(busy(id, Doing::Resuming))
            }
            // What it has may be younger than what was stored of it.
            Ok(Err(source @ NodeError::Unreachable)) => {
                Err(self.not_done(&row.node, id, source).await)
            }
            Ok(Err(less @ NodeError::FilesOnly(_))) => Err(ChangeError::Placement(less.into())),
            Ok(Err(error)) => {
                tracing::warn!(
                    sandbox.id = %id, team.id = %row.team, error = chain(&error),
                    "could not resume sandbox {id}"
                );
                Err(ChangeError::Placement(error.into()))
            }
            Err(_) => Err(ChangeError::Placement(PlacementError::Timeout(limit))),
        }
    }

    /// What it was made of, for a start from its files.
    pub(super) async fn as_made(
        &self,
        row: &Sandbox,
        life: Duration,
        on_timeout: OnTimeout,
    ) -> Result<CreateRequest, ChangeError> {
        let id = &row.id;
        // A pause with memory needs none of this; what is missing is the start's to refuse.
        let build = self.store.build_by_id(&row.build).await?;
        let envs = self.keys.open_envs(id, row.envs.as_deref());
        let envs = envs.unwrap_or_else(|error| {
            tracing::error!(sandbox.id = %id, %error, "sandbox {id} goes on without its variables");
            Default::default()
        });
        let build = build.unwrap_or_else(|| nothing_to_make(row));
        let startup = build.started_with().cloned();
        Ok(CreateRequest {
            sandbox: id.clone(),
            team: row.team.clone(),
            template: row.template.clone(),
            layers: build.layers,
            distribution: Some(build.distribution),
            resources: row.resources,
            network: row
                .network
                .compile()
                .map_err(super::network::NetworkError::from)?,
            envs,
            access_token: row.secured.then(|| self.keys.envd_token(id)),
            default_user: build.default_user,
            default_workdir: build.default_workdir,
            life_ms: millis(self.life_with(startup.as_ref(), life)),
            on_timeout,
            files: None,
            startup,
            warm: false,
            creator: self.owner.clone(),
            entrance: Some(self.keys.entrance(id, &row.ingress)),
        })
    }
}

/// Stands for a build that is gone: no node has its layer, so that nothing is started of it.
pub(super) fn nothing_to_make(row: &Sandbox) -> Build {
    Build {
        id: row.build,
        template: row.template.clone(),
        layers: vec!["gone".into()],
        resources: row.resources,
        default_user: String::new(),
        default_workdir: None,
        envs: Default::default(),
        envd_version: row.envd_version.clone(),
        files: None,
        startup: None,
        distribution: Distribution::Other,
        created_at: row.started_at,
    }
}
