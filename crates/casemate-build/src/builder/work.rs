//! One build, from its ground to its end: which states are taken from the cache, which are made, and
//! in which sandbox.

use std::sync::{Arc, Mutex, MutexGuard};

use casemate_rpc::NodePort;
use casemate_store::{CacheKey, CachedLayer};
use casemate_types::{LayerId, SnapshotId, Timestamp, chain};

use super::flights::Turn;
use super::ground::{self, Ground};
use super::held::Hold;
use super::label::Kept;
use super::log::{BuildLog, Level, Phase};
use super::sandbox::{BuildSandbox, Maker, Planned};
use super::steps::{Action, Bench, Left};
use super::still_kept::StillKept;
use super::{BuildError, Builder, Job, Uploads, key};
use crate::recipe::Step;

/// See the module.
pub(super) struct Work<'a> {
    pub(super) builder: &'a Builder,
    pub(super) job: &'a Job,
    pub(super) node: &'a Arc<dyn NodePort>,
    pub(super) uploads: &'a dyn Uploads,
    pub(super) log: &'a Arc<dyn BuildLog>,
    pub(super) begun: &'a Begun,
    pub(super) hold: &'a mut Hold,
    /// One that is as the state is.
    pub(super) sandbox: Option<Arc<BuildSandbox>>,
    /// From here on nothing is taken from the cache.
    pub(super) is_forced: bool,
    /// Of an archive that was a template before.
    pub(super) kept: Option<Kept>,
    pub(super) still_kept: StillKept,
}

/// Sandboxes that a build began, and that are to be ended with it however it ends.
#[derive(Default)]
pub(super) struct Begun(Mutex<Vec<Arc<BuildSandbox>>>);

impl Begun {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<BuildSandbox>>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    pub(super) fn add(&self, sandbox: &Arc<BuildSandbox>) {
        self.lock().push(Arc::clone(sandbox));
    }

    /// Ends all.
    pub(super) async fn end(&self) {
        let all = std::mem::take(&mut *self.lock());
        let end = |sandbox: Arc<BuildSandbox>| async move { sandbox.end().await };
        // Beside each other: one that resists keeps nobody from going.
        let ends: Vec<_> = all.into_iter().map(|one| tokio::spawn(end(one))).collect();
        for end in ends {
            if let Err(error) = end.await {
                tracing::warn!(%error, "the end of a build's sandbox was cut off");
            }
        }
    }
}

/// A state and its key.
pub(super) struct State {
    pub(super) key: CacheKey,
    pub(super) is: CachedLayer,
}

impl Work<'_> {
    /// Everything up to the last step.
    pub(super) async fn steps(&mut self) -> Result<State, BuildError> {
        let mut state = self.ground().await?;
        if self.job.sets_user && self.kept.is_none() {
            let phase = self.phase(ground::STEP, "base".into());
            let phase = phase.with_output(Level::Debug);
            let step = Step {
                kind: "USER".into(),
                args: vec!["user".into(), "true".into()],
                ..Step::default()
            };
            let text = "DEFAULT USER user";
            state = self.step(state, &step, text, &phase).await?;
        }
        let steps = &self.job.recipe.steps;
        for (number, step) in (1..).zip(steps) {
            self.is_forced |= step.force;
            let prefix = format!("builder {number}/{}", steps.len());
            let phase = self.phase(&number.to_string(), prefix);
            let text = text_of(step);
            state = self.step(state, step, &text, &phase).await?;
        }
        Ok(state)
    }

    pub(super) fn phase(&self, step: &str, prefix: String) -> Phase {
        Phase::new(self.log, step, prefix)
    }

    async fn ground(&mut self) -> Result<State, BuildError> {
        let phase = self.phase(ground::STEP, "base".into());
        let ground = &self.job.ground;
        let text = ground.text();
        let (reference, login) = match ground {
            Ground::Template {
                build,
                files_mib,
                is_image,
                ..
            } => {
                let is = ground::of_template(build, *is_image, *files_mib);
                self.hold_state(&is);
                self.refuse_lost_ground(&is).await?;
                let key = key::of_template(build.id, *is_image);
                phase.begin(true, text, key.as_str());
                return Ok(State { key, is });
            }
            Ground::Archive { files, reference } => {
                let (files, reference) = (files.clone(), reference.clone());
                return self
                    .of_archive(&files, reference.as_deref(), text, &phase)
                    .await;
            }
            Ground::Image { reference, login } => (reference, login.as_ref()),
        };
        let key = key::of_image(reference);
        let (_turn, found) = self.wanted(&key, &phase).await?;
        phase.begin(found.is_some(), text, key.as_str());
        if let Some(is) = found {
            return Ok(State { key, is });
        }
        let is = self.of_image(reference, login, &phase).await?;
        self.put(&key, &is).await?;
        Ok(State { key, is })
    }

    async fn step(
        &mut self,
        before: State,
        step: &Step,
        text: &str,
        phase: &Phase,
    ) -> Result<State, BuildError> {
        let action = Action::of(step);
        let action = action.map_err(|why| BuildError::recipe(phase.step(), why))?;
        let kind = step.kind.to_ascii_uppercase();
        let files = step.files_hash.as_deref();
        let key = key::of_step(&before.key, &kind, &step.args, files);
        let (_turn, found) = self.wanted(&key, phase).await?;
        phase.begin(found.is_some(), text, key.as_str());
        if let Some(is) = found {
            self.leave_sandbox().await;
            return Ok(State { key, is });
        }
        let left = match action.literal(&before.is.context) {
            Some(context) => Left::Context(context),
            None => self.carry_out(&before.is, &action, phase).await?,
        };
        let (Left::Context(context) | Left::Files(context)) = &left;
        let is_kept = self.still_kept.takes(context, phase);
        let is = self.left(before.is, left, is_kept).await?;
        if is_kept {
            self.put(&key, &is).await?;
        }
        Ok(State { key, is })
    }

    /// The state behind a step. Where it is not kept, only the sandbox has its files.
    async fn left(
        &mut self,
        before: CachedLayer,
        left: Left,
        is_kept: bool,
    ) -> Result<CachedLayer, BuildError> {
        let (context, sandbox) = match left {
            Left::Context(context) => (context, None),
            Left::Files(context) => (context, self.sandbox.clone()),
        };
        let files = match sandbox.filter(|_| is_kept) {
            Some(sandbox) => Some(self.keep(&sandbox, before.files.as_ref()).await?),
            None => before.files,
        };
        Ok(CachedLayer {
            context,
            files,
            ..before
        })
    }

    async fn carry_out(
        &mut self,
        before: &CachedLayer,
        action: &Action,
        phase: &Phase,
    ) -> Result<Left, BuildError> {
        let sandbox = self.sandbox_of(before).await?;
        let bench = Bench {
            sandbox: &sandbox,
            context: &before.context,
            phase,
            uploads: self.uploads,
            team: &self.job.team,
        };
        let carried_out = bench.carry_out(action).await;
        sandbox.explained(carried_out, phase.step()).await
    }

    /// What the cache has, unless it must not be asked; and the right to make it, if it has not.
    pub(super) async fn wanted(
        &mut self,
        key: &CacheKey,
        phase: &Phase,
    ) -> Result<(Option<Turn>, Option<CachedLayer>), BuildError> {
        if !self.is_forced
            && let Some(found) = self.find(key, phase).await?
        {
            return Ok((None, Some(found)));
        }
        let (turn, _) = self.turn(key, phase).await;
        // Whoever made it may have ended just before the turn was ours.
        let found = match self.is_forced {
            true => None,
            false => self.find(key, phase).await?,
        };
        Ok((Some(turn), found))
    }

    /// Waits while another build makes the same layer; whether it had to.
    pub(super) async fn turn(&self, key: &CacheKey, phase: &Phase) -> (Turn, bool) {
        let flights = &self.builder.flights;
        let taken = flights.turn(&self.job.team, key).await;
        if taken.1 {
            let text = "waited for another build that made the same layer";
            phase.say(Level::Debug, text);
        }
        taken
    }

    pub(super) async fn find(
        &mut self,
        key: &CacheKey,
        phase: &Phase,
    ) -> Result<Option<CachedLayer>, BuildError> {
        let (cache, team) = (&self.builder.cache, &self.job.team);
        let mut found = cache.layer_find(team, key, Timestamp::now()).await?;
        while let Some(layer) = found {
            self.hold_state(&layer);
            // What is found twice was there when it was held.
            let again = cache.layer_find(team, key, Timestamp::now()).await?;
            if again.as_ref() == Some(&layer) {
                return self.unless_lost(key, layer, phase).await;
            }
            found = again;
        }
        Ok(None)
    }

    pub(super) async fn put(&self, key: &CacheKey, is: &CachedLayer) -> Result<(), BuildError> {
        let (cache, team) = (&self.builder.cache, &self.job.team);
        // What it replaced is nobody's now, and goes with the next look for such.
        cache.layer_put(team, key, is, Timestamp::now()).await?;
        Ok(())
    }

    fn hold_state(&mut self, is: &CachedLayer) {
        self.hold.state(is);
    }

    pub(super) fn maker(&self) -> Maker {
        Maker {
            node: Arc::clone(self.node),
            team: self.job.team.clone(),
            template: self.job.template.clone(),
            resources: self.job.resources,
            network: self.builder.network.clone(),
            creator: self.builder.creator.clone(),
        }
    }

    /// Makes one and waits until it serves.
    pub(super) async fn begin(
        &mut self,
        planned: Planned,
    ) -> Result<Arc<BuildSandbox>, BuildError> {
        // Before anybody hears of it.
        self.hold.sandbox(planned.id());
        let (layers, files) = planned.begins_with();
        let sandbox = Arc::new(planned.make());
        self.begun.add(&sandbox);
        match sandbox.ready().await {
            Ok(()) => Ok(sandbox),
            Err(error) => Err(self.why_none_began(error, &layers, files.as_ref()).await),
        }
    }

    pub(super) async fn end(&self, sandbox: &Arc<BuildSandbox>) {
        sandbox.end().await;
        self.begun.lock().retain(|one| !Arc::ptr_eq(one, sandbox));
    }

    /// The one that runs, or one that is made of the state.
    pub(super) async fn sandbox_of(
        &mut self,
        state: &CachedLayer,
    ) -> Result<Arc<BuildSandbox>, BuildError> {
        if let Some(sandbox) = &self.sandbox {
            return Ok(Arc::clone(sandbox));
        }
        let sandbox = self.begin(self.maker().plan(state)?).await?;
        self.sandbox = Some(Arc::clone(&sandbox));
        Ok(sandbox)
    }

    /// The state is not what the sandbox is any more.
    pub(super) async fn leave_sandbox(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            self.end(&sandbox).await;
        }
    }

    /// Keeps the files of a sandbox as they are now, for a state that comes after the one of `before`.
    pub(super) async fn keep(
        &mut self,
        sandbox: &BuildSandbox,
        before: Option<&SnapshotId>,
    ) -> Result<SnapshotId, BuildError> {
        let files = SnapshotId::random_of_build();
        self.hold.files(&files);
        let kept = sandbox.keep(&files).await?;
        self.note_files(&files, before, kept).await?;
        Ok(files)
    }

    /// Makes a read-only layer of the files of a sandbox as they are now, and says what it takes.
    pub(super) async fn seal(
        &mut self,
        sandbox: &BuildSandbox,
    ) -> Result<(LayerId, u64), BuildError> {
        let files = SnapshotId::random_of_build();
        self.hold.files(&files);
        sandbox.keep(&files).await?;
        let layer = LayerId::random();
        self.hold.layer(layer.as_str());
        let sealed = self.node.seal(&files, &layer).await;
        if let Err(error) = self.node.remove_snapshot(&files).await {
            tracing::debug!(
                snapshot.id = %files, error = chain(&error),
                "could not remove what a layer was made of yet"
            );
        }
        let bytes = sealed?.bytes;
        self.note_layer(&layer, bytes).await?;
        Ok((layer, bytes))
    }
}

fn text_of(step: &Step) -> String {
    let kind = step.kind.to_ascii_uppercase();
    let args = step.args.join(" ");
    // Arguments may be long, and of many lines: the log shows what the step is.
    let shown: String = args.chars().take(TEXT_CHARS_MAX).collect();
    let more = if shown.len() < args.len() { " …" } else { "" };
    format!("{kind} {shown}{more}")
}

/// Characters of a step's arguments that its line shows.
const TEXT_CHARS_MAX: usize = 2000;
