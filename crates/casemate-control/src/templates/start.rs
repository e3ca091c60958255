//! Running builds: begun for a client, cancelled by another, ended with this process.
//!
//! ```text
//! begin ─▶ ground ─▶ Builder::run ─▶ log written ─▶ ready, or failed
//! ```
//!
//! The recipe is in memory alone: a build whose process ends is failed, and what it had finished is in
//! the cache for the next one.

mod archives;
mod log;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use casemate_build::builder::{BuildError, BuildLog, Built, Ground, Hold, Job};
use casemate_build::recipe::Recipe;
use casemate_images::Reference;
use casemate_store::{Build, BuildBegun, BuildId, BuildRecord, CacheKey, StoreError};
use casemate_types::{BuildFailure, BuildStatus, TeamId, TemplateId, Timestamp, chain};
use tokio_util::sync::CancellationToken;

use crate::Control;
use crate::again::again;
use crate::auth::TeamCaller;
use crate::reconcile;
use crate::tasks::TaskKind;
use crate::templates::TemplateError;
use archives::AtNode;
use log::Written;

/// A build whose end was not noted would never end, for whoever waits for it and for the limit of
/// builds. Whoever starts next fails what was left.
const NOT_NOTED: &str = "could not note the end of a build";

/// What a client starts a build with.
#[derive(Debug, Clone)]
pub struct StartBuild {
    pub recipe: Recipe,
    /// Its SDK expects steps to run as `user` (`templates.md` 2.2.4, build version 2.1.0).
    pub sets_user: bool,
}

/// Why a build was not started. The texts are E2B's.
#[derive(Debug, thiserror::Error)]
pub enum StartBuildError {
    #[error("Invalid build ID: {0}")]
    InvalidBuildId(String),
    #[error("build is not in waiting state")]
    NotWaiting,
    #[error("User does not have access to the template")]
    NotYours,
    #[error("Error when getting template: there is no build {0} of this template")]
    NotFound(String),
    /// The build has failed of it.
    #[error("Error when starting template build: {0}")]
    Source(&'static str),
    #[error("Error when getting available build client")]
    Unavailable,
    #[error("the store failed at the start of a build")]
    Store(#[from] StoreError),
}

/// What a build that this process cannot end fails of.
pub(crate) fn interrupted() -> BuildFailure {
    BuildFailure {
        message: "the build was interrupted because the platform was restarted; start it again"
            .into(),
        step: None,
    }
}

/// Builds of this process that are under way.
#[derive(Clone, Default)]
pub(crate) struct Building(Arc<Mutex<HashMap<BuildId, (TemplateId, CancellationToken)>>>);

/// One of them, until it is dropped.
struct RunningBuild {
    of: Building,
    build: BuildId,
    cancel: CancellationToken,
}

impl Drop for RunningBuild {
    fn drop(&mut self) {
        self.of.lock().remove(&self.build);
    }
}

impl Building {
    fn lock(&self) -> MutexGuard<'_, HashMap<BuildId, (TemplateId, CancellationToken)>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// One that was begun here already is not waiting.
    fn begin(&self, record: &BuildRecord) -> Result<RunningBuild, StartBuildError> {
        let (build, cancel) = (record.id, CancellationToken::new());
        let mut all = self.lock();
        if all.contains_key(&build) {
            return Err(StartBuildError::NotWaiting);
        }
        all.insert(build, (record.template.clone(), cancel.clone()));
        Ok(RunningBuild {
            of: self.clone(),
            build,
            cancel,
        })
    }

    fn cancel(&self, build: &BuildId) {
        if let Some((_, cancel)) = self.lock().get(build) {
            cancel.cancel();
        }
    }

    /// Those of a template that is gone.
    pub(crate) fn cancel_of(&self, template: &TemplateId) {
        let all = self.lock();
        let of_it = all.values().filter(|(of, _)| of == template);
        of_it.for_each(|(_, cancel)| cancel.cancel());
    }

    fn all(&self) -> Vec<BuildId> {
        self.lock().keys().copied().collect()
    }
}

impl Control {
    /// Begins a build that waits. What is wrong with its recipe is the build's failure, not this
    /// call's.
    pub async fn start_build(
        self: &Arc<Self>,
        caller: &TeamCaller,
        template: &str,
        build: &str,
        ask: StartBuild,
    ) -> Result<(), StartBuildError> {
        let record = self.own_build(caller, template, build).await?;
        if self.nodes.connected().is_empty() {
            return Err(StartBuildError::Unavailable);
        }
        let now = Timestamp::now();
        // Before it is begun: whoever cancels it finds it from its first moment on.
        let running = self.building.begin(&record)?;
        let rivals = match self.store.build_begin(&record.id, &self.owner, now).await? {
            BuildBegun::Began { rivals } => rivals,
            BuildBegun::NotWaiting => return Err(StartBuildError::NotWaiting),
            BuildBegun::Unknown => return Err(StartBuildError::NotFound(build.to_owned())),
        };
        let cancelled = BuildError::Cancelled.failure();
        self.cancel_builds(&rivals, cancelled).await;
        let recipe = &ask.recipe;
        if let Err(why) = check_source(recipe) {
            let message = format!("error when building env: {why}");
            let failure = BuildFailure {
                message,
                step: None,
            };
            self.fail_begun(running, failure).await;
            return Err(StartBuildError::Source(why));
        }
        let (ground, rests_on) = match self.ground(caller, recipe).await {
            Ok(found) => found,
            Err(message) => {
                let failure = BuildFailure::new(message, Some("base".into()));
                self.fail_begun(running, failure).await;
                return Ok(());
            }
        };
        let job = Job {
            team: caller.team.id.clone(),
            template: record.template.clone(),
            build: record.id,
            recipe: ask.recipe,
            ground,
            resources: record.resources,
            sets_user: ask.sets_user,
        };
        let control = Arc::clone(self);
        self.tasks.spawn(TaskKind::Request, async move {
            let (team, is_forced) = (job.team.clone(), is_forced(&job.recipe));
            let is_ready = control.run_build(job, record, &running.cancel).await;
            drop((running, rests_on));
            let trimmed = control.bound_builds(&team).await.unwrap_or_else(|error| {
                tracing::warn!(
                    team.id = %team, error = chain(&error),
                    "could not look how much builds of team {team} take; trying again later"
                );
                false
            });
            // The look grows with all that is there: only where something may lie at the node that
            // nothing needs. What else there may be is found by the next one in any case.
            if !is_ready || is_forced || trimmed {
                reconcile::drop_unwanted_soon(&control);
            }
        });
        Ok(())
    }

    /// A build of a template of the caller's team.
    async fn own_build(
        &self,
        caller: &TeamCaller,
        template: &str,
        build: &str,
    ) -> Result<BuildRecord, StartBuildError> {
        let invalid = |_| StartBuildError::InvalidBuildId(build.to_owned());
        let id = BuildId::parse(build).map_err(invalid)?;
        let not_found = || StartBuildError::NotFound(build.to_owned());
        let template = TemplateId::parse(template).map_err(|_| not_found())?;
        let found = self.store.template_by_id(&template).await?;
        let found = found.ok_or_else(not_found)?;
        if found.owner.as_ref() != Some(&caller.team.id) {
            return Err(StartBuildError::NotYours);
        }
        let record = self.store.build_record(&id).await?;
        record
            .filter(|record| record.template == template)
            .ok_or_else(not_found)
    }

    /// What the recipe stands on, held from here on: the build may wait for long. The error is the
    /// build's, about its base.
    async fn ground(
        &self,
        caller: &TeamCaller,
        recipe: &Recipe,
    ) -> Result<(Ground, Option<Hold>), String> {
        if let Some(archive) = &recipe.from_archive {
            let files = CacheKey::parse(&archive.files_hash);
            let ground = Ground::Archive {
                files: files.ok_or("invalid files hash of the archive")?,
                reference: archive.reference.clone(),
            };
            return Ok((ground, None));
        }
        let (name, resolved) = match (&recipe.from_image, &recipe.from_template) {
            (Some(image), _) => {
                let at_hand = Reference::parse(image).ok().and_then(|reference| {
                    let images = &self.config.builds.images_at_hand;
                    images.get(&reference.to_string()).cloned()
                });
                let Some(template) = at_hand else {
                    let ground = Ground::Image {
                        reference: image.clone(),
                        login: recipe.registry.clone(),
                    };
                    return Ok((ground, None));
                };
                // Whatever the team calls so itself.
                (image, self.look_up_template_in("", &template, caller).await)
            }
            (None, Some(template)) => (template, self.look_up_template(caller, template).await),
            (None, None) => return Err("there is neither an image nor a template".into()),
        };
        let (_, build) = resolved.map_err(|error| match &error {
            TemplateError::Store { .. } => {
                tracing::error!(
                    error = chain(&error),
                    "could not look for the base of a build"
                );
                casemate_build::builder::INTERNAL.to_owned()
            }
            // The text of a build, not of a request, begins in lower case.
            TemplateError::Reference(why) => format!("invalid template reference: {why}"),
            other => other.to_string(),
        })?;
        let hold = self.builder.held().hold_build(&build);
        // It may have gone between the look and the hold.
        let again = self.store.build_by_id(&build.id).await.map_err(|error| {
            tracing::error!(
                error = chain(&error),
                "could not look for the base of a build"
            );
            casemate_build::builder::INTERNAL.to_owned()
        })?;
        let is_same = |again: &Build| again.files == build.files && again.layers == build.layers;
        if !again.as_ref().is_some_and(is_same) {
            return Err(TemplateError::NotFound(name.clone()).to_string());
        }
        let record = self.store.build_record(&build.id).await.unwrap_or_default();
        let size = record.and_then(|record| record.disk_size_mib);
        let ground = Ground::Template {
            files_mib: size.map_or(0, |size| size.saturating_sub(build.resources.disk_mib)),
            name: name.clone(),
            is_image: recipe.from_image.is_some(),
            build: Box::new(build),
        };
        Ok((ground, Some(hold)))
    }

    /// Whether it became ready.
    async fn run_build(
        self: &Arc<Self>,
        job: Job,
        record: BuildRecord,
        cancel: &CancellationToken,
    ) -> bool {
        let (id, team) = (job.build, job.team.clone());
        let written = Written::begin(self, &job);
        let log: Arc<dyn BuildLog> = Arc::clone(&written) as _;
        let running = tokio::spawn({
            let (control, cancel) = (Arc::clone(self), cancel.clone());
            async move {
                let node = control.node_for_builds(&job.team)?;
                if let Ground::Template { build, .. } = &job.ground
                    && let Err(error) = control
                        .bring_in_any_case(&node, build, &id.to_string())
                        .await
                {
                    // The builder says what it lacks.
                    tracing::warn!(
                        build.id = %id, node = node.name, error = chain(&error),
                        "could not bring the base of build {id} to its node"
                    );
                }
                let (builder, port) = (&control.builder, Arc::clone(&node.port));
                let at_node = AtNode {
                    control: Arc::clone(&control),
                    node,
                };
                builder.run(&job, &port, &at_node, &log, &cancel).await
            }
        });
        let outcome = running.await.unwrap_or_else(|error| {
            let why = format!("the task of the build ended: {error}");
            Err(BuildError::Internal(why))
        });
        let noted = match outcome {
            Ok((built, hold)) => {
                written.finish().await;
                let now = Timestamp::now();
                let note = || self.note_built(&team, &record, &built, now);
                let noted = again(&self.tasks, NOT_NOTED, note).await;
                drop(hold);
                noted
            }
            Err(error) => {
                if let Some(why) = error.for_operators() {
                    tracing::error!(build.id = %id, error = why, "build {id} failed");
                }
                written.finish().await;
                let (now, failure) = (Timestamp::now(), error.failure());
                let fail = || self.store.build_fail(&id, &failure, now);
                again(&self.tasks, NOT_NOTED, fail).await.map(|_| false)
            }
        };
        noted.unwrap_or_else(|error| {
            tracing::error!(build.id = %id, error = chain(&error), "could not note the end of build {id}");
            false
        })
    }

    /// Whether it is ready: it may have been cancelled meanwhile.
    async fn note_built(
        self: &Arc<Self>,
        team: &TeamId,
        record: &BuildRecord,
        built: &Built,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let disk_mib = record.resources.disk_mib.saturating_add(built.files_mib);
        let build = Build {
            id: record.id,
            template: record.template.clone(),
            layers: built.layers.clone(),
            resources: record.resources,
            default_user: built.default_user.clone(),
            default_workdir: built.default_workdir.clone(),
            envs: built.envs.clone(),
            envd_version: self.config.builds.agent_version.clone(),
            files: None,
            startup: built.startup.clone(),
            distribution: built.distribution.clone(),
            created_at: record.created_at,
        };
        let is_ready = self.store.build_finish(&build, disk_mib, at).await?;
        if is_ready {
            self.forget_builds().await;
            self.warm_up(team, &build);
            self.has_news();
            let id = record.id;
            tracing::info!(build.id = %id, template.id = %record.template, "build {id} is ready");
        }
        Ok(is_ready)
    }

    /// Fails one that was begun and is not run, now or once the store lets it.
    async fn fail_begun(self: &Arc<Self>, running: RunningBuild, failure: BuildFailure) {
        let (id, now) = (running.build, Timestamp::now());
        let Err(error) = self.store.build_fail(&id, &failure, now).await else {
            return;
        };
        tracing::warn!(
            build.id = %id, error = chain(&error),
            "could not note the end of build {id} yet"
        );
        let control = Arc::clone(self);
        self.tasks.spawn(TaskKind::Cleanup, async move {
            let fail = || control.store.build_fail(&id, &failure, now);
            // What a process cannot note while it lives, the next one notes at its start.
            let _ = again(&control.tasks, NOT_NOTED, fail).await;
            drop(running);
        });
    }

    /// Fails builds that wait or run; those that run stop soon.
    pub(crate) async fn cancel_builds(&self, builds: &[BuildId], failure: BuildFailure) {
        for build in builds {
            let now = Timestamp::now();
            if let Err(error) = self.store.build_fail(build, &failure, now).await {
                tracing::warn!(build.id = %build, error = chain(&error), "could not cancel build {build}");
            }
            self.building.cancel(build);
        }
    }

    /// Stops builds of this process that another server has cancelled, or whose template it deleted.
    pub(crate) async fn drop_cancelled_builds(&self) -> Result<(), StoreError> {
        for build in self.building.all() {
            let record = self.store.build_record(&build).await?;
            if record.is_none_or(|record| record.status == BuildStatus::Failed) {
                self.building.cancel(&build);
            }
        }
        Ok(())
    }

    /// Stops what this process builds and exports: it ends.
    pub(crate) async fn interrupt_builds(&self) {
        self.exporting.cancel_all();
        self.cancel_builds(&self.building.all(), interrupted())
            .await;
    }
}

/// Whether something that is in the cache may be made again, and take its place.
fn is_forced(recipe: &Recipe) -> bool {
    recipe.force || recipe.steps.iter().any(|step| step.force)
}

/// Whether there is one thing to begin with. Of archives E2B says nothing.
fn check_source(recipe: &Recipe) -> Result<(), &'static str> {
    let (image, template) = (&recipe.from_image, &recipe.from_template);
    match (image, template, &recipe.from_archive) {
        (Some(_), Some(_), _) => Err("cannot specify both fromImage and fromTemplate"),
        (Some(_), None, Some(_)) => Err("cannot specify both fromImage and fromArchive"),
        (None, Some(_), Some(_)) => Err("cannot specify both fromTemplate and fromArchive"),
        (None, None, None) => Err("must specify either fromImage or fromTemplate"),
        (Some(_), None, None) | (None, Some(_), None) | (None, None, Some(_)) => Ok(()),
    }
}
