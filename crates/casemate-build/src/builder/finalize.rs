//! The end of a build: the last touches, one read-only layer of all that the steps wrote, and a
//! sandbox of it in which the start command proves itself.

use std::sync::Arc;
use std::time::Duration;

use casemate_failpoint::{self as failpoint, Point};
use casemate_store::CachedLayer;
use casemate_types::{BuildContext, Startup};
use tokio::time::Instant;

use super::ground::Ground;
use super::log::{Level, Phase};
use super::sandbox::{BuildSandbox, COMMAND_LIMIT, Script};
use super::steps::ADMINISTRATOR;
use super::work::{State, Work};
use super::{BuildError, Built, key};

/// Run at the end of every build; a part of the key of what comes of it.
pub(super) const CONFIGURE: &str = include_str!("configure.sh");
/// Reason's word for what happens behind the last step.
const STEP: &str = "finalize";
/// Numbers of `templates.md` 4.9.
const CONFIGURE_LIMIT: Duration = Duration::from_secs(300);
const READY_LIMIT: Duration = Duration::from_secs(600);
const READY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// A template that is up at once is not to wait for two seconds.
const READY_PAUSE_FIRST: Duration = Duration::from_millis(50);
/// What waits for a start command without a ready command.
const READY_DEFAULT: &str = "sleep 20";
/// Layers of a template that still fit below a sandbox with the operator's own.
pub const LAYERS_MAX: usize = 14;

impl Work<'_> {
    pub(super) async fn finalize(&mut self, last: State) -> Result<Built, BuildError> {
        let phase = self.phase(STEP, STEP.into());
        phase.say(Level::Info, "Finalizing template build");
        let context = last.is.context.clone();
        let is = self.sealed(last, &phase).await?;
        self.leave_sandbox().await;
        let startup = self.startup(&context);
        if let Some(startup) = &startup {
            self.proven(&is, startup, &phase).await?;
        }
        let (default_user, default_workdir) = match self.job.sets_user {
            true => (context.user, context.workdir),
            // Clients of that age expect this whatever the steps said.
            false => ("user".into(), None),
        };
        Ok(Built {
            layers: is.layers,
            default_user,
            default_workdir,
            envs: context.envs,
            startup,
            distribution: is.distribution,
            files_mib: is.size_mib,
        })
    }

    /// All that was written above the ground as one layer.
    async fn sealed(&mut self, last: State, phase: &Phase) -> Result<CachedLayer, BuildError> {
        let key = key::of_end(&last.key);
        let (_turn, found) = self.wanted(&key, phase).await?;
        if let Some(found) = found {
            self.fits(&found, STEP).await?;
            return Ok(found);
        }
        if last.is.layers.len() >= LAYERS_MAX {
            let message = format!(
                "the template stands on {} others, one on the other: at most {LAYERS_MAX} work",
                last.is.layers.len()
            );
            return Err(BuildError::recipe(STEP, message));
        }
        let sandbox = self.sandbox_of(&last.is).await?;
        let configured = configure(&sandbox, phase).await;
        sandbox.explained(configured, STEP).await?;
        let (layer, bytes) = self.seal(&sandbox).await?;
        let layers = [layer.to_string()].into_iter().chain(last.is.layers);
        let is = CachedLayer {
            layers: layers.collect(),
            files: None,
            size_mib: last.is.size_mib.saturating_add(mib(bytes)),
            ..last.is
        };
        // One that does not is nobody's, and goes.
        self.fits(&is, STEP).await?;
        failpoint::hit(Point::SealAnswered);
        self.put(&key, &is).await?;
        failpoint::hit(Point::SealCached);
        Ok(is)
    }

    /// What was asked for, or what the template below has.
    fn startup(&self, context: &BuildContext) -> Option<Startup> {
        let recipe = &self.job.recipe;
        let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let (start, ready) = (given(&recipe.start), given(&recipe.ready));
        let below = match &self.job.ground {
            Ground::Template { build, .. } => build.startup.clone(),
            Ground::Archive { .. } => self.kept.as_ref().and_then(|kept| kept.startup.clone()),
            Ground::Image { .. } => None,
        };
        match (&self.job.ground, below, start.is_some(), ready.is_some()) {
            (_, below, false, false) => return below,
            // Ours, where E2B says nothing: a further check of what the archive starts.
            (Ground::Archive { .. }, Some(below), false, true) => {
                return Some(Startup {
                    ready: ready.unwrap_or(below.ready),
                    ..below
                });
            }
            _ => {}
        }
        Some(Startup {
            start,
            ready: ready.unwrap_or_else(|| READY_DEFAULT.into()),
            context: context.clone(),
        })
    }

    /// Sees it become ready, unless an earlier build did with the same files, commands and resources:
    /// what did not change costs nothing, and every sandbox starts it anyway.
    async fn proven(
        &mut self,
        is: &CachedLayer,
        startup: &Startup,
        phase: &Phase,
    ) -> Result<(), BuildError> {
        let key = key::of_start(&is.layers, startup, &self.job.resources);
        let (_turn, found) = self.wanted(&key, phase).await?;
        if found.is_some() {
            let command = startup.start.as_deref().unwrap_or(&startup.ready);
            phase.begin(true, format_args!("START {command}"), key.as_str());
            phase.say(Level::Info, "Template is ready");
            return Ok(());
        }
        self.prove(is, startup, phase).await?;
        self.put(&key, is).await
    }

    /// Starts a sandbox as clients get it and waits until it is ready.
    async fn prove(
        &mut self,
        is: &CachedLayer,
        startup: &Startup,
        phase: &Phase,
    ) -> Result<(), BuildError> {
        let sandbox = self.begin(self.maker().plan(is)?).await?;
        let outcome = self.run_startup(&sandbox, startup, phase).await;
        let outcome = sandbox.explained(outcome, STEP).await;
        self.end(&sandbox).await;
        outcome
    }

    async fn run_startup(
        &self,
        sandbox: &Arc<BuildSandbox>,
        startup: &Startup,
        phase: &Phase,
    ) -> Result<(), BuildError> {
        let failed = |message: String| BuildError::recipe(STEP, message);
        let output = self.phase(STEP, "start".into());
        let start = async {
            match &startup.start {
                Some(script) => {
                    phase.say(Level::Info, format_args!("Running start command: {script}"));
                    let run = Script {
                        script,
                        context: &startup.context,
                        user: None,
                        phase: &output,
                        limit: COMMAND_LIMIT,
                    };
                    sandbox.run(run).await
                }
                None => std::future::pending().await,
            }
        };
        let ready = until_ready(sandbox, startup, phase, self.phase(STEP, "ready".into()));
        tokio::pin!(start, ready);
        let begun = Instant::now();
        let mut has_ended = false;
        loop {
            tokio::select! {
                biased;
                ended = &mut start, if !has_ended => {
                    let ended = ended.map_err(|error| match super::refused(&error) {
                        Some(why) => failed(format!("start command failed: {why}")),
                        None => error,
                    })?;
                    if !ended.is_ok() {
                        let tail = ended.tail.lines(20);
                        if !tail.is_empty() {
                            let text = format!("the last output was:\n{tail}");
                            phase.say(Level::Error, text);
                        }
                        return Err(failed(format!(
                            "start command failed: error running start command: {}",
                            ended.status()
                        )));
                    }
                    has_ended = true;
                }
                ready = &mut ready => {
                    ready?;
                    phase.say(Level::Info, "Template is ready");
                    return in_time(startup, begun.elapsed(), self.builder.limits.startup);
                }
            }
        }
    }
}

/// Every sandbox waits for its start command, and no client for longer than a create may take.
fn in_time(startup: &Startup, took: Duration, most: Duration) -> Result<(), BuildError> {
    if startup.start.is_none() || took < most {
        return Ok(());
    }
    let (took, most) = (took.as_secs(), most.as_secs());
    let message = format!(
        "start command failed: it was ready after {took} s, and sandboxes of this platform start \
         it anew each time: they wait {most} s at most"
    );
    Err(BuildError::recipe(STEP, message))
}

async fn until_ready(
    sandbox: &BuildSandbox,
    startup: &Startup,
    phase: &Phase,
    output: Phase,
) -> Result<(), BuildError> {
    let script = &startup.ready;
    let output = output.with_output(Level::Debug);
    phase.say(
        Level::Info,
        format_args!("Waiting for template to be ready: {script}"),
    );
    let end = Instant::now() + READY_LIMIT;
    let mut pause = READY_PAUSE_FIRST;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let run = Script {
            script,
            context: &startup.context,
            user: None,
            phase: &output,
            limit: left.max(Duration::from_millis(1)),
        };
        let why = match sandbox.run(run).await {
            Ok(ran) if ran.is_ok() => return Ok(()),
            Ok(ran) => ran.status(),
            Err(error) => match super::refused(&error) {
                Some(why) => why,
                None => return Err(error),
            },
        };
        phase.say(Level::Debug, format_args!("Template is not ready: {why}"));
        if Instant::now() + pause >= end {
            let minutes = READY_LIMIT.as_secs() / 60;
            let message =
                format!("ready command failed: ready command timed out after {minutes}m0s");
            return Err(BuildError::recipe(STEP, message));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(READY_PAUSE_MAX);
    }
}

/// Rounded up: a template of nothing has a size.
pub(super) fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX)
}

async fn configure(sandbox: &BuildSandbox, phase: &Phase) -> Result<(), BuildError> {
    let root = BuildContext {
        user: "root".into(),
        workdir: Some("/".into()),
        envs: Default::default(),
    };
    let script = CONFIGURE.replace("#administrator\n", ADMINISTRATOR);
    let output = phase.clone().with_output(Level::Debug);
    let ran = sandbox
        .run(Script {
            script: &script,
            context: &root,
            user: Some("root"),
            phase: &output,
            limit: CONFIGURE_LIMIT,
        })
        .await
        .map_err(|error| match super::refused(&error) {
            Some(why) => BuildError::recipe(STEP, format!("configuration script failed: {why}")),
            None => error,
        })?;
    if !ran.is_ok() {
        let message = format!(
            "configuration script failed: {}: {}",
            ran.status(),
            ran.tail.lines(10)
        );
        return Err(BuildError::recipe(STEP, message));
    }
    Ok(())
}
