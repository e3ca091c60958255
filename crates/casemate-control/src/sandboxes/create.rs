//! Making a sandbox.
//!
//! ```text
//! check ─▶ place in the quota ─▶ node makes it ─▶ row in the store ─▶ route ─▶ answer
//!                                     │                 │
//!                                     └── no answer ────┴── fails: the node ends it again
//! ```
//!
//! One of a template with a start command may be there already, started and waiting
//! ([`crate::warm`]): then the node only gives it away.
//!
//! The row comes after the node's answer, so that a row always stands for something that ran.
//! The caller runs this detached: a client that hangs up changes nothing.

mod check;
mod fence;
mod idempotent;
mod warm;

use std::collections::BTreeMap;
use std::time::Duration;

use casemate_failpoint::{self as failpoint, Point};
use casemate_rpc::{CreateReply, CreateRequest, NodeError};
use casemate_store::sandboxes::FIRST_GENERATION;
use casemate_store::{Build, Sandbox, StoreError, Template};
use casemate_types::{
    CompiledPolicy, EndReason, Ingress, Kept, NetworkPolicy, OnTimeout, SandboxId, SandboxState,
    TemplateId, chain,
};

pub use check::CreateRefused;
pub use idempotent::{IdempotencyError, IdempotencyKey, InvalidIdempotencyKey};

use super::network::NetworkAsk;
use super::place::{PlacementError, is_template_missing};
use super::startup::StartupError;
use crate::Control;
use crate::auth::TeamCaller;
use crate::nodes::Node;
use crate::quota::{Place, QuotaReached};
use crate::tasks::TaskKind;
use crate::templates::TemplateError;

/// What a client asks for, defaults of the operation filled in.
#[derive(Clone)]
pub struct CreateSandbox {
    pub template: String,
    pub timeout_seconds: u32,
    pub auto_pause: bool,
    pub auto_pause_memory: bool,
    pub auto_resume: bool,
    pub network: NetworkAsk,
    pub metadata: BTreeMap<String, String>,
    pub envs: BTreeMap<String, String>,
    /// Workload identity tokens asked for.
    pub iam_tokens: usize,
    pub volume_mounts: usize,
}

/// A sandbox that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub sandbox: SandboxId,
    pub template: TemplateId,
    pub alias: Option<String>,
    pub envd_version: String,
    pub access_token: String,
    /// Of one whose ports are not public.
    pub traffic_token: Option<String>,
    pub domain: String,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Refused(#[from] CreateRefused),
    #[error(transparent)]
    Quota(#[from] QuotaReached),
    #[error("place a sandbox")]
    Placement(#[from] PlacementError),
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    /// Its template's start command failed in it; it is gone again.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// It was made and could not be recorded; it is gone again.
    #[error("record a sandbox")]
    Store(#[source] StoreError),
}

impl From<StoreError> for CreateError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TeamFull { max } => QuotaReached { max }.into(),
            error => Self::Store(error),
        }
    }
}

/// What has been checked: everything that a node needs.
#[derive(Clone)]
struct Plan {
    sandbox: SandboxId,
    template: Template,
    build: Build,
    life: Duration,
    policy: NetworkPolicy,
    compiled: CompiledPolicy,
    ingress: Ingress,
    on_timeout: OnTimeout,
    auto_resume: bool,
    metadata: BTreeMap<String, String>,
    envs: BTreeMap<String, String>,
}

impl Control {
    /// Makes a sandbox for the caller's team.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn create(
        &self,
        caller: &TeamCaller,
        ask: CreateSandbox,
    ) -> Result<Created, CreateError> {
        let again = ask.clone();
        let resolved = self.resolve_template(caller, &ask.template).await?;
        let plan = self.plan(caller, ask, (*resolved).clone())?;
        match self.create_as(caller, plan, false).await? {
            Some(created) => Ok(created),
            // Its name may lead to others by now, which are taken once.
            None => {
                let name = again.template.clone();
                let resolved = self.look_up_template(caller, &name).await?;
                let plan = self.plan(caller, again, resolved)?;
                let created = self.create_as(caller, plan, true).await?;
                Ok(created.ok_or(TemplateError::NotFound(name))?)
            }
        }
    }

    /// `None`: its snapshot is gone, or seems to be the first time. Nothing is left of it.
    async fn create_as(
        &self,
        caller: &TeamCaller,
        mut plan: Plan,
        is_last: bool,
    ) -> Result<Option<Created>, CreateError> {
        if let Some(created) = self.create_from_warm(caller, &plan).await? {
            return Ok(Some(created));
        }
        let started = std::time::Instant::now();
        let mut asking = self.asking(&plan.build, None);
        let mut placed = None;
        while let Some(node) = asking.next().await {
            // One that did not answer may be making a sandbox of the former name.
            plan.sandbox = SandboxId::random();
            let (team, max) = (&caller.team.id, caller.limits.sandboxes_max);
            let place = self.take_place(team, &plan.sandbox, max).await?;
            let starting = self.starting.enter(&plan.sandbox, &node);
            let request = self.request(caller, &plan);
            match self.place_with(&node, &plan.build, request).await {
                Ok(reply) => {
                    placed = Some((node, place, starting, reply));
                    break;
                }
                Err(error) => {
                    if !is_template_missing(&error) {
                        node.create_failed();
                        tracing::warn!(
                            sandbox.id = %plan.sandbox, team.id = %team, node = node.name,
                            error = chain(&error),
                            "could not place sandbox {} on node {}", plan.sandbox, node.name
                        );
                    }
                    asking.refused(error);
                }
            }
        }
        let refused = asking.end();
        let Some((node, place, _starting, reply)) = placed else {
            if is_template_missing(&refused)
                && plan.template.owner.is_some()
                && !(is_last && self.has_its_build(&plan).await?)
            {
                return Ok(None);
            }
            return Err(refused.into());
        };
        failpoint::hit(Point::CreatePlaced);
        let started_with = plan.build.started_with();
        let reply = self
            .started_in(&node, &plan.sandbox, started_with, plan.life, reply)
            .await?;
        let created = self.created(caller, plan, place, &node, &reply).await?;
        if let Some(created) = &created {
            let sandbox = &created.sandbox;
            let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::debug!(
                sandbox.id = %sandbox, team.id = %caller.team.id, template.id = %created.template,
                took_ms, "sandbox {sandbox} runs"
            );
        }
        Ok(created)
    }

    /// Row, route and answer of one that serves.
    async fn created(
        &self,
        caller: &TeamCaller,
        plan: Plan,
        place: Place,
        node: &Node,
        reply: &CreateReply,
    ) -> Result<Option<Created>, CreateError> {
        let envs = self.keys.seal_envs(&plan.sandbox, &plan.envs);
        let row = row(caller, &plan, envs, &node.name, reply);
        self.record(row, place, caller.limits.sandboxes_max).await?;
        self.not_given_up(node, &plan.sandbox, reply.started_at)
            .await?;
        failpoint::hit(Point::CreateRecorded);
        if !self.has_its_build(&plan).await? {
            // Without its build it could never be started from its files.
            if let Err(error) = self.kill(caller, &plan.sandbox).await {
                tracing::warn!(
                    sandbox.id = %plan.sandbox, error = chain(&error),
                    "could not end a sandbox whose snapshot was deleted; its deadline does"
                );
            }
            return Ok(None);
        }
        node.create_succeeded(plan.build.resources.memory_mib);
        self.spawned.note(&plan.template.id);
        self.note_use(&caller.team.id, &plan.build, &plan.compiled);
        Ok(Some(Created {
            access_token: self.keys.envd_token(&plan.sandbox),
            traffic_token: plan
                .ingress
                .is_private()
                .then(|| self.keys.traffic_token(&plan.sandbox)),
            domain: self.config.domain.clone(),
            sandbox: plan.sandbox,
            template: plan.template.id,
            alias: plan.template.alias,
            envd_version: plan.build.envd_version,
        }))
    }

    fn plan(
        &self,
        caller: &TeamCaller,
        ask: CreateSandbox,
        (template, build): (Template, Build),
    ) -> Result<Plan, CreateError> {
        let (policy, compiled, ingress) = check::check(caller, &ask, &build)?;
        self.may_ask(&compiled).map_err(CreateRefused::from)?;
        Ok(Plan {
            sandbox: SandboxId::random(),
            template,
            build,
            life: Duration::from_secs(ask.timeout_seconds.into()),
            policy,
            compiled,
            ingress,
            on_timeout: on_timeout(&ask),
            auto_resume: ask.auto_resume,
            metadata: ask.metadata,
            envs: ask.envs,
        })
    }

    /// A template may be deleted as long as there is no row that keeps it; the platform's own never
    /// is.
    async fn has_its_build(&self, plan: &Plan) -> Result<bool, StoreError> {
        let is_kept = plan.template.owner.is_none();
        Ok(is_kept || self.store.build_by_id(&plan.build.id).await?.is_some())
    }

    fn request(&self, caller: &TeamCaller, plan: &Plan) -> CreateRequest {
        CreateRequest {
            sandbox: plan.sandbox.clone(),
            team: caller.team.id.clone(),
            template: plan.template.id.clone(),
            layers: plan.build.layers.clone(),
            distribution: Some(plan.build.distribution.clone()),
            resources: plan.build.resources,
            network: plan.compiled.clone(),
            envs: plan.envs.clone(),
            access_token: Some(self.keys.envd_token(&plan.sandbox)),
            default_user: plan.build.default_user.clone(),
            default_workdir: plan.build.default_workdir.clone(),
            life_ms: millis(self.life_with(plan.build.started_with(), plan.life)),
            on_timeout: plan.on_timeout,
            files: plan.build.files.clone(),
            startup: plan.build.started_with().cloned(),
            warm: false,
            creator: self.owner.clone(),
            entrance: Some(self.keys.entrance(&plan.sandbox, &plan.ingress)),
        }
    }

    /// Writes the row and the route. Fails only after seeing to it that the sandbox goes;
    /// [`StoreError::TeamFull`] when the team's last place was another's.
    pub(super) async fn record(
        &self,
        row: Sandbox,
        place: Place,
        sandboxes_max: u32,
    ) -> Result<(), StoreError> {
        let (id, node, generation) = (row.id.clone(), row.node.clone(), row.generation);
        if self.shared().is_some() {
            self.recent.made(&id);
        }
        // Row and route come together for whoever compares the two.
        let one = self.locks.lock(&id).await;
        let running_max = self.running_max(sandboxes_max);
        if let Err(error) = self.store.sandbox_insert(&row, running_max).await {
            if !matches!(error, StoreError::TeamFull { .. }) {
                tracing::error!(sandbox.id = %id, error = chain(&error), "could not record sandbox {id}; ending it");
            }
            self.take_back(&node, id);
            return Err(error);
        }
        self.keep_place(place);
        self.records.note(&node, &id);
        self.note_created(&row);
        self.put_route(&row, false).await;
        drop(one);
        if let Some((reason, at)) = self.recent.end_of(&id, &node) {
            // It ended before its row or its route was there; the client learns of it like of any
            // other end.
            let removed = self.catalog.route_remove(&id, &node, generation);
            if let Err(error) = removed.await {
                tracing::error!(sandbox.id = %id, error = chain(&error), "could not remove the route of {id}");
            }
            self.note_ended(&node, &id, reason, at).await?;
        }
        Ok(())
    }

    /// Ends a sandbox that its client was not told of. One that the node is still making is ended
    /// when it says that it runs, and one of a node that cannot be reached once that is back.
    pub(crate) fn take_back(&self, node: &str, sandbox: SandboxId) {
        self.recent.doom(&sandbox);
        let Ok(node) = self.nodes.port(node) else {
            return;
        };
        self.tasks.spawn(TaskKind::Cleanup, async move {
            match node.kill(&sandbox, EndReason::Killed).await {
                Ok(()) | Err(NodeError::NotFound(_)) => {}
                Err(error) => tracing::warn!(
                    sandbox.id = %sandbox, error = chain(&error),
                    "could not end sandbox {sandbox} of a failed create yet"
                ),
            }
        });
    }
}

pub(crate) fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX)
}

fn on_timeout(ask: &CreateSandbox) -> OnTimeout {
    match (ask.auto_pause, ask.auto_pause_memory) {
        (false, _) => OnTimeout::Kill,
        (true, true) => OnTimeout::Pause(Kept::Memory),
        (true, false) => OnTimeout::Pause(Kept::Files),
    }
}

fn row(
    caller: &TeamCaller,
    plan: &Plan,
    envs: Option<Vec<u8>>,
    node: &str,
    reply: &CreateReply,
) -> Sandbox {
    Sandbox {
        id: plan.sandbox.clone(),
        team: caller.team.id.clone(),
        template: plan.template.id.clone(),
        alias: plan.template.alias.clone(),
        build: plan.build.id,
        node: node.into(),
        envd_version: plan.build.envd_version.clone(),
        resources: plan.build.resources,
        metadata: plan.metadata.clone(),
        secured: true,
        network: plan.policy.clone(),
        ingress: plan.ingress.clone(),
        envs,
        timeout: plan.life,
        on_timeout: plan.on_timeout,
        auto_resume: plan.auto_resume,
        started_at: reply.started_at,
        state: SandboxState::Running {
            ends_at: reply.ends_at,
        },
        generation: FIRST_GENERATION,
        stored_files: None,
    }
}
