//! Forks: new sandboxes that begin with what a running one has written.
//!
//! Its files are kept for the moment that it takes to begin with them; a crash leaves them to the
//! next comparison.

use std::sync::Arc;
use std::time::Duration;

use casemate_rpc::NodeError;
use casemate_store::Sandbox;
use casemate_store::sandboxes::FIRST_GENERATION;
use casemate_types::limits::FORKS_MAX;
use casemate_types::{SandboxId, SandboxState, SnapshotId, chain, steady};

use super::create::{CreateError, Created};
use super::place::PlacementError;
use super::{ChangeError, stands};
use crate::Control;
use crate::auth::TeamCaller;
use crate::transitions::Doing;

/// Why nothing was forked. The texts are E2B's.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    #[error("Count must be at least 1")]
    TooFew,
    #[error("Count cannot be greater than {FORKS_MAX}")]
    TooMany,
    #[error("Count must be lower than the maximum number of concurrent sandboxes ({0})")]
    AboveTeam(u32),
    #[error("Timeout must be greater than 0")]
    TimeoutZero,
    #[error("Sandbox '{0}' is paused and cannot be forked; resume it first")]
    Paused(SandboxId),
    #[error("Sandbox '{sandbox}' cannot be forked while in '{state}' state")]
    Busy {
        sandbox: SandboxId,
        state: &'static str,
    },
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl Control {
    /// Makes `count` sandboxes that live for `timeout` and begin with the files of one that runs;
    /// one answer for each.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn fork(
        self: &Arc<Self>,
        caller: &TeamCaller,
        id: &SandboxId,
        timeout: Duration,
        count: u32,
    ) -> Result<Vec<Result<Created, CreateError>>, ForkError> {
        check(caller, timeout, count)?;
        let row = self.forkable(caller, id).await;
        // What is being paused may have a row that says paused already.
        if let Some(other) = self.transitions.of(id) {
            self.must_stand(caller, id).await?;
            return Err(in_state(id, other.doing));
        }
        let row = row?;
        if self
            .nodes
            .get(&row.node)
            .is_ok_and(|node| node.is_draining())
        {
            // Its forks would be there as well.
            let what = "it is being drained".into();
            let full = PlacementError::from(NodeError::Full { what });
            return Err(ChangeError::Placement(full).into());
        }
        let turn = self.transitions.begin(id, Doing::Snapshotting).await;
        let turn = turn.map_err(|other| in_state(id, other.doing))?;
        // It may have been paused before the turn was ours.
        let row = self.forkable(caller, &row.id).await?;
        let pending = self.unrecorded.begin();
        self.keep_files(&row.node, id, pending.files()).await?;
        turn.done().await;
        let forks = (0..count).map(|_| {
            let control = Arc::clone(self);
            let (caller, row, files) = (caller.clone(), row.clone(), pending.files().clone());
            // Each on a task of its own: their starts run side by side.
            tokio::spawn(async move { control.fork_one(&caller, &row, &files, timeout).await })
        });
        let mut made = Vec::new();
        for fork in forks.collect::<Vec<_>>() {
            made.push(fork.await.unwrap_or_else(|error| {
                tracing::error!(sandbox.id = %id, %error, "a fork of sandbox {id} was lost");
                Err(CreateError::Placement(PlacementError::NoNode))
            }));
        }
        self.drop_files_at(&row.node, vec![pending.files().clone()]);
        drop(pending);
        Ok(made)
    }

    async fn forkable(&self, caller: &TeamCaller, id: &SandboxId) -> Result<Sandbox, ForkError> {
        let not_found = || ChangeError::NotFound(id.clone());
        let row = self.own_row(caller, id).await?;
        let row = row.ok_or_else(not_found)?;
        match stands(&row, steady::now()).ok_or_else(not_found)? {
            SandboxState::Running { .. } => Ok(row),
            SandboxState::Paused { .. } => Err(ForkError::Paused(id.clone())),
            SandboxState::Dead { .. } => Err(not_found().into()),
        }
    }

    async fn fork_one(
        &self,
        caller: &TeamCaller,
        parent: &Sandbox,
        files: &SnapshotId,
        timeout: Duration,
    ) -> Result<Created, CreateError> {
        let id = SandboxId::random();
        let max = caller.limits.sandboxes_max;
        let place = self.take_place(&caller.team.id, &id, max).await?;
        // Its files are there.
        let node = self.nodes.get(&parent.node).map_err(PlacementError::from)?;
        let _starting = self.starting.enter(&id, &node);
        let envs = self.keys.open_envs(&parent.id, parent.envs.as_deref());
        let envs = envs.unwrap_or_else(|error| {
            tracing::error!(sandbox.id = %id, %error, "sandbox {id} is forked without variables");
            Default::default()
        });
        let row = Sandbox {
            envs: self.keys.seal_envs(&id, &envs),
            id: id.clone(),
            timeout,
            generation: FIRST_GENERATION,
            ..parent.clone()
        };
        let made = self.as_made(&row, timeout, row.on_timeout).await;
        let mut request = made.map_err(|error| match error {
            ChangeError::Store(error) => error.into(),
            error => {
                tracing::error!(sandbox.id = %id, error = chain(&error), "could not fork");
                CreateError::Placement(PlacementError::NoNode)
            }
        })?;
        request.files = Some(files.clone());
        let startup = request.startup.clone();
        let reply = self.place(&node, request).await.inspect_err(|error| {
            node.create_failed();
            tracing::warn!(
                sandbox.id = %id, parent.id = %parent.id, error = chain(error),
                "could not place a fork of sandbox {}", parent.id
            );
        })?;
        let reply = self
            .started_in(&node, &id, startup.as_ref(), timeout, reply)
            .await?;
        let row = Sandbox {
            started_at: reply.started_at,
            state: SandboxState::Running {
                ends_at: reply.ends_at,
            },
            ..row
        };
        self.record(row.clone(), place, max).await?;
        self.not_given_up(&node, &id, row.started_at).await?;
        node.create_succeeded(row.resources.memory_mib);
        Ok(Created {
            access_token: self.keys.envd_token(&id),
            traffic_token: row
                .ingress
                .is_private()
                .then(|| self.keys.traffic_token(&id)),
            domain: self.config.domain.clone(),
            sandbox: id,
            template: row.template,
            alias: row.alias,
            envd_version: row.envd_version,
        })
    }
}

fn check(caller: &TeamCaller, timeout: Duration, count: u32) -> Result<(), ForkError> {
    let max = caller.limits.sandboxes_max;
    if count < 1 {
        return Err(ForkError::TooFew);
    }
    if count > FORKS_MAX {
        return Err(ForkError::TooMany);
    }
    if count >= max {
        return Err(ForkError::AboveTeam(max));
    }
    if timeout.is_zero() {
        return Err(ForkError::TimeoutZero);
    }
    if timeout > caller.limits.life_max() {
        let hours = caller.limits.life_hours_max;
        return Err(ChangeError::TimeoutTooLong { hours }.into());
    }
    Ok(())
}

fn in_state(id: &SandboxId, doing: Doing) -> ForkError {
    ForkError::Busy {
        sandbox: id.clone(),
        state: doing.state(),
    }
}
