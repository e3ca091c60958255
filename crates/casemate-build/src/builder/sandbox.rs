//! The sandbox in which a build's steps run: made of a state, ended with the build.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use casemate_rpc::{CreateRequest, NodeError, NodePort, SnapshotReply};
use casemate_store::CachedLayer;
use casemate_types::{
    BuildContext, CompiledPolicy, Distribution, EndReason, OnTimeout, Resources, SandboxId,
    SnapshotId, TeamId, TemplateId, chain,
};
use envd_client::process::{Command, End, Event};
use envd_client::{Envd, EnvdError, HttpError};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::BuildError;
use super::error::DISK_FULL;
use super::log::{Level, Phase};
use super::value::Between;
use crate::agent;

/// One command may take this long, and so may each step (`templates.md` 4.9).
pub(super) const COMMAND_LIMIT: Duration = Duration::from_secs(3600);
/// The node ends a build's sandbox by itself after this, if nobody does.
const LIFE: Duration = Duration::from_secs(2 * 3600);
/// What a value is waited for: whatever is read is there at once, but a profile may do anything.
const VALUE_LIMIT: Duration = Duration::from_secs(120);
/// What ending a sandbox is waited for; it goes on without anybody, and the node ends what is left.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// What is appended to a `PATH` that a recipe set.
const PATH_MORE: &str = ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is needed to make sandboxes for a build.
#[derive(Clone)]
pub(super) struct Maker {
    pub(super) node: Arc<dyn NodePort>,
    pub(super) team: TeamId,
    pub(super) template: TemplateId,
    pub(super) resources: Resources,
    pub(super) network: CompiledPolicy,
    pub(super) creator: String,
}

/// A sandbox that runs, or is on its way.
pub(super) struct BuildSandbox {
    node: Arc<dyn NodePort>,
    id: SandboxId,
    envd: Envd,
    /// Making it goes on when whoever waits for it does not: else nobody would end it.
    making: Mutex<Option<JoinHandle<Result<(), NodeError>>>>,
    /// When it was asked for.
    begun: Instant,
}

/// How a command ended.
pub(super) struct Ran {
    pub(super) end: End,
    /// The kernel ended processes of the sandbox meanwhile, because its memory was full.
    pub(super) is_memory_full: bool,
    /// The last lines of both streams, for messages.
    pub(super) tail: Tail,
}

impl Ran {
    pub(super) fn is_ok(&self) -> bool {
        self.end.exited && self.end.exit_code == 0
    }

    /// How it ended, as the shell says it, and whether that was for want of memory.
    pub(super) fn status(&self) -> String {
        let status = match self.end.exited {
            true => format!("exit status {}", self.end.exit_code),
            false => self.end.status.clone(),
        };
        self.with_memory(status)
    }

    /// The same behind another text of how it ended.
    pub(super) fn with_memory(&self, status: String) -> String {
        match self.is_memory_full {
            true => format!("{status}, out of memory"),
            false => status,
        }
    }
}

/// Whether the agent had begun to answer, or to hear, and was gone then.
fn is_cut_off(error: &EnvdError) -> bool {
    match error {
        EnvdError::Http(error @ HttpError::Send { .. }) => !error.is_connect(),
        EnvdError::Http(HttpError::Read { .. }) | EnvdError::Stream { .. } => true,
        _ => false,
    }
}

/// A command and how it is run.
pub(super) struct Script<'a> {
    pub(super) script: &'a str,
    pub(super) context: &'a BuildContext,
    /// Of the context's; another one to run it as.
    pub(super) user: Option<&'a str>,
    pub(super) phase: &'a Phase,
    pub(super) limit: Duration,
}

/// One that is about to be made.
pub(super) struct Planned {
    node: Arc<dyn NodePort>,
    envd: Envd,
    request: CreateRequest,
}

impl Maker {
    /// One that begins with a state.
    pub(super) fn plan(&self, state: &CachedLayer) -> Result<Planned, BuildError> {
        self.plan_of(Beginning {
            layers: state.layers.clone(),
            files: state.files.clone(),
            distribution: Some(state.distribution.clone()),
            resources: self.resources,
        })
    }

    /// The same without the operator's settings.
    pub(super) fn plan_bare(&self, state: &CachedLayer) -> Result<Planned, BuildError> {
        self.plan_of(Beginning {
            layers: state.layers.clone(),
            files: state.files.clone(),
            distribution: None,
            resources: self.resources,
        })
    }

    /// One that holds nothing.
    pub(super) fn plan_empty(&self, resources: Resources) -> Result<Planned, BuildError> {
        self.plan_of(Beginning {
            layers: Vec::new(),
            files: None,
            distribution: None,
            resources,
        })
    }

    fn plan_of(&self, beginning: Beginning) -> Result<Planned, BuildError> {
        let id = SandboxId::random();
        let mut token = [0; 32];
        getrandom::fill(&mut token).expect("the kernel's random source answers once booted");
        let token = hex::encode(token);
        let envd = agent::of(&self.node, &id, &token)?;
        let request = CreateRequest {
            sandbox: id,
            team: self.team.clone(),
            template: self.template.clone(),
            layers: beginning.layers,
            distribution: beginning.distribution,
            resources: beginning.resources,
            network: self.network.clone(),
            envs: BTreeMap::new(),
            access_token: Some(token),
            default_user: "root".into(),
            // A command without a folder runs in its user's home.
            default_workdir: None,
            life_ms: u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX),
            on_timeout: OnTimeout::Kill,
            files: beginning.files,
            startup: None,
            warm: false,
            creator: self.creator.clone(),
            entrance: None,
        };
        Ok(Planned {
            node: Arc::clone(&self.node),
            envd,
            request,
        })
    }
}

/// What a sandbox begins with.
struct Beginning {
    layers: Vec<String>,
    files: Option<SnapshotId>,
    distribution: Option<Distribution>,
    resources: Resources,
}

impl Planned {
    pub(super) fn id(&self) -> &SandboxId {
        &self.request.sandbox
    }

    /// Layers and kept files.
    pub(super) fn begins_with(&self) -> (Vec<String>, Option<SnapshotId>) {
        (self.request.layers.clone(), self.request.files.clone())
    }

    /// Begins to make it; it can be used once [`BuildSandbox::ready`] returned.
    pub(super) fn make(self) -> BuildSandbox {
        let (node, id) = (Arc::clone(&self.node), self.request.sandbox.clone());
        let begun = Instant::now();
        let making = tokio::spawn(async move { node.create(self.request).await.map(drop) });
        BuildSandbox {
            node: self.node,
            id,
            envd: self.envd,
            making: Mutex::new(Some(making)),
            begun,
        }
    }
}

impl BuildSandbox {
    /// Waits until it serves.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn ready(&self) -> Result<(), BuildError> {
        let mut being_made = self.making.lock().await;
        if let Some(making) = &mut *being_made {
            let made = making.await;
            *being_made = None;
            made.map_err(|error| BuildError::Internal(error.to_string()))??;
        }
        Ok(())
    }

    pub(super) fn envd(&self) -> &Envd {
        &self.envd
    }

    /// Keeps its files as they are now.
    pub(super) async fn keep(&self, files: &SnapshotId) -> Result<SnapshotReply, BuildError> {
        let kept = self.node.snapshot(&self.id, files).await?;
        match self.met_full_disk().await {
            // A step may have gone on without what it could not write, and its state would be found
            // again when there is room.
            true => Err(BuildError::Refused(DISK_FULL.into())),
            false => Ok(kept),
        }
    }

    /// Whose fault it is: what fails on a full disk is not the recipe's, and a step that ends the
    /// agent is not the platform's.
    pub(super) async fn explained<T>(
        &self,
        outcome: Result<T, BuildError>,
        step: &str,
    ) -> Result<T, BuildError> {
        match outcome {
            Err(BuildError::Recipe { .. }) if self.met_full_disk().await => {
                Err(BuildError::Refused(DISK_FULL.into()))
            }
            Err(BuildError::Agent(error)) if is_cut_off(&error) => {
                tracing::info!(
                    sandbox.id = %self.id, error = chain(&error),
                    "a build lost the agent of its sandbox {}", self.id
                );
                Err(self.why_cut_off(step).await)
            }
            other => other,
        }
    }

    /// The connection to the agent broke off in the middle.
    async fn why_cut_off(&self, step: &str) -> BuildError {
        match self.node.memory_kills(&self.id).await {
            // It runs, and nobody else can reach what is in it.
            Ok(_) => BuildError::recipe(
                step,
                "the agent of the sandbox was ended by something that runs in it",
            ),
            Err(NodeError::NotFound(_)) => {
                let why = "the build was interrupted: its sandbox has ended; start it again";
                BuildError::Refused(why.into())
            }
            Err(error) => error.into(),
        }
    }

    /// Whether there was no room for sandboxes to write at a moment of its life.
    async fn met_full_disk(&self) -> bool {
        let ago = match self.node.info().await {
            Ok(info) => info.layers_full_ms_ago.map(Duration::from_millis),
            // Whatever comes next says so.
            Err(_) => None,
        };
        ago.is_some_and(|ago| ago <= self.begun.elapsed())
    }

    /// Ends it, also one that is still being made; waits [`END_PATIENCE`] at most. What takes longer
    /// goes on by itself, and what cannot be ended ends by its deadline.
    ///
    /// # Cancel safety
    /// Cancel safe: it is ended all the same.
    pub(super) async fn end(self: &Arc<Self>) {
        let sandbox = Arc::clone(self);
        let ending = tokio::spawn(async move { sandbox.end_now().await });
        if tokio::time::timeout(END_PATIENCE, ending).await.is_err() {
            let id = &self.id;
            tracing::warn!(
                sandbox.id = %id,
                "sandbox {id} of a build is not ended after {} s; going on without it",
                END_PATIENCE.as_secs()
            );
        }
    }

    async fn end_now(&self) {
        {
            let mut being_made = self.making.lock().await;
            if let Some(making) = &mut *being_made {
                let made = making.await;
                *being_made = None;
                match made {
                    Ok(Ok(()) | Err(NodeError::Unreachable)) => {}
                    // Nothing is left of it.
                    Ok(Err(_)) | Err(_) => return,
                }
            }
        }
        match self.node.kill(&self.id, EndReason::Killed).await {
            Ok(()) | Err(NodeError::NotFound(_)) => {}
            Err(error) => tracing::warn!(
                sandbox.id = %self.id, error = chain(&error),
                "could not end the sandbox of a build yet"
            ),
        }
    }

    /// Runs a script to its end.
    pub(super) async fn run(&self, run: Script<'_>) -> Result<Ran, BuildError> {
        let user = run.user.unwrap_or(&run.context.user);
        let command = in_login_shell(run.script, run.context, run.limit);
        self.run_command(user, command, run.phase, None).await
    }

    /// Runs a command to its end. Its standard output goes to `value`, or to the log.
    pub(super) async fn run_command(
        &self,
        user: &str,
        command: Command,
        phase: &Phase,
        mut value: Option<&mut Between>,
    ) -> Result<Ran, BuildError> {
        let before = self.memory_kills().await;
        let envd = self.envd.clone().as_user(user);
        let mut events = envd.process_run(command).await?;
        let mut tail = Tail::default();
        let (mut out, mut err) = (phase.output("stdout"), phase.output("stderr"));
        while let Some(event) = events.next().await? {
            match event {
                Event::Stdout(bytes) => match &mut value {
                    Some(value) => value.push(&bytes)?,
                    None => {
                        tail.push(&bytes);
                        out.push(&bytes);
                    }
                },
                Event::Stderr(bytes) => {
                    tail.push(&bytes);
                    err.push(&bytes);
                }
                Event::Ended(end) => {
                    out.end();
                    err.end();
                    let is_memory_full = match end.exited && end.exit_code == 0 {
                        true => false,
                        false => self.memory_kills().await > before,
                    };
                    return Ok(Ran {
                        end,
                        is_memory_full,
                        tail,
                    });
                }
                Event::Started { .. } | Event::Terminal(_) => {}
            }
        }
        Err(BuildError::Internal("a command had no end".into()))
    }

    /// Processes that the kernel ended for want of memory. It only explains a failure: where it
    /// cannot be had, nothing is explained.
    async fn memory_kills(&self) -> u64 {
        self.node.memory_kills(&self.id).await.unwrap_or_default()
    }

    /// Runs a script as root whose standard output is a value; the inner error is of one that
    /// failed. Waits [`VALUE_LIMIT`] at most.
    pub(super) async fn value(
        &self,
        script: &str,
        context: &BuildContext,
        phase: &Phase,
    ) -> Result<Result<Option<String>, Ran>, BuildError> {
        let mut between = Between::random();
        let command = in_login_shell(&between.around(script), context, VALUE_LIMIT);
        let phase = phase.clone().with_output(Level::Debug);
        let ran = self
            .run_command("root", command, &phase, Some(&mut between))
            .await?;
        Ok(match ran.is_ok() {
            true => Ok(between
                .value()
                .map(|value| String::from_utf8_lossy(&value).into_owned())),
            false => Err(ran),
        })
    }
}

fn in_login_shell(script: &str, context: &BuildContext, limit: Duration) -> Command {
    Command {
        program: "/bin/bash".into(),
        args: vec!["-l".into(), "-c".into(), script.into()],
        env: variables(context),
        working_dir: context.workdir.clone(),
        limit: Some(limit),
        ..Command::default()
    }
}

/// What commands of a recipe see beyond what every command sees.
pub(super) fn variables(context: &BuildContext) -> Vec<(String, String)> {
    let with_path = |(name, value): (&String, &String)| match name.as_str() {
        "PATH" => (name.clone(), format!("{value}{PATH_MORE}")),
        _ => (name.clone(), value.clone()),
    };
    context.envs.iter().map(with_path).collect()
}

/// The end of what was printed: so many bytes, cut to whole lines.
#[derive(Default)]
pub(super) struct Tail(Vec<u8>);

const TAIL_BYTES: usize = 4 * 1024;

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        if self.0.len() > 2 * TAIL_BYTES {
            self.0.drain(..self.0.len() - TAIL_BYTES);
        }
    }

    /// The last lines, at most so many.
    pub(super) fn lines(&self, max: usize) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        let lines: Vec<_> = lines.into_iter().filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(max)..].join("\n")
    }
}
