//! Builds templates: from a recipe to layers that sandboxes begin with.
//!
//! ```text
//! ground ─▶ user ─▶ step 1 … step N ─▶ end ─▶ sealed layer ─▶ start command, in a fresh sandbox
//!   │         │        │                │
//!   └─────────┴────────┴── each a state: layers, kept files, context; cached by its key
//! ```
//!
//! Everything that comes from outside (an image's archives, uploaded files, commands) is unpacked and
//! run inside sandboxes, which are made, kept and ended through the node port like anybody's. A state
//! costs a copy on write; only the last one becomes a layer of its own. Must not know the public API,
//! and no isolation kind.

mod archive;
mod body;
mod bytes;
mod error;
mod export;
mod finalize;
mod flights;
mod ground;
mod held;
mod key;
mod label;
mod log;
mod login;
mod lost;
mod sandbox;
mod shell;
mod steps;
mod still_kept;
mod turns;
mod value;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use casemate_images::Images;
use casemate_rpc::NodePort;
use casemate_store::{BuildCache, BuildId, CacheKey};
use casemate_types::{
    CompiledPolicy, Distribution, Resources, SnapshotId, Startup, TeamId, TemplateId,
};
use envd_client::{Answer, EnvdError};
use serde::Deserialize;
use tokio::io::AsyncRead;
use tokio_util::sync::CancellationToken;

pub use error::{BuildError, INTERNAL};
pub use export::Export;
pub use ground::Ground;
pub use held::{Held, Hold};
pub use label::{Exported, exported};
pub use log::{BuildLog, Level};

use crate::recipe::Recipe;
use still_kept::StillKept;
use work::{Begun, Work};

/// A whole build at most (`templates.md` 4.9).
const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// What an operator decides.
#[derive(Debug, Clone)]
pub struct BuilderLimits {
    /// Builds that run at once; others wait, for ever where it is none, and teams take turns.
    pub builds_at_once: usize,
    /// An image's files at most, MiB.
    pub image_mib_max: u32,
    /// What a team's layers and cached states may take together at the nodes, bytes: a template whose
    /// layers do not fit beside those of the team's others fails.
    pub team_bytes_max: u64,
    /// What a start command may take until it is ready: sandboxes of the template wait for it.
    pub startup: Duration,
}

/// Runs builds. One for each process.
pub struct Builder {
    cache: Arc<dyn BuildCache + Send + Sync>,
    images: Arc<Images>,
    /// What steps may reach.
    network: CompiledPolicy,
    limits: BuilderLimits,
    /// Of its sandboxes: this API server.
    creator: String,
    flights: flights::Flights,
    held: Held,
    turns: turns::Turns,
}

/// A build to be run.
#[derive(Debug, Clone)]
pub struct Job {
    pub team: TeamId,
    pub template: TemplateId,
    pub build: BuildId,
    pub recipe: Recipe,
    pub ground: Ground,
    pub resources: Resources,
    /// Steps run as `user`, and sandboxes begin as the last user and in the last folder; clients before
    /// 2.3.0 expect neither (`templates.md` 2.2.4).
    pub sets_user: bool,
}

/// What sandboxes of a build begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Topmost first.
    pub layers: Vec<String>,
    pub default_user: String,
    pub default_workdir: Option<String>,
    /// Set by its steps; for templates that are built on it.
    pub envs: BTreeMap<String, String>,
    pub startup: Option<Startup>,
    pub distribution: Distribution,
    /// What all its files take together, MiB.
    pub files_mib: u32,
}

/// Why there are no uploaded files to copy.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("there are none of this name")]
    Missing,
    #[error("{0}")]
    Broken(String),
}

/// Where clients' archives are.
#[async_trait]
pub trait Uploads: Send + Sync {
    /// The archive of this name; of the team's own only.
    async fn open(
        &self,
        team: &TeamId,
        key: &CacheKey,
    ) -> Result<Box<dyn AsyncRead + Send + Unpin>, UploadError>;

    /// The same as a file, for who reads it in another order; whether it is still what was uploaded,
    /// the reader has to see.
    async fn file(&self, team: &TeamId, key: &CacheKey) -> Result<std::fs::File, UploadError>;

    /// Has come to the build's node what it lacks of this and others have. What does not come is
    /// missing still.
    async fn bring(&self, layers: &[String], files: Option<&SnapshotId>, hold: &str);
}

impl Builder {
    pub fn new(
        cache: Arc<dyn BuildCache + Send + Sync>,
        images: Arc<Images>,
        network: CompiledPolicy,
        limits: BuilderLimits,
        creator: String,
    ) -> Self {
        Self {
            cache,
            images,
            network,
            turns: turns::Turns::new(limits.builds_at_once, limits.builds_at_once),
            limits,
            creator,
            flights: flights::Flights::default(),
            held: Held::default(),
        }
    }

    /// What must not be removed now though no row names it.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Runs a build to its end, at this node; what it made is held until the second of the pair is dropped, which is
    /// after whoever called has written it down. Leaves no sandbox behind, whatever happens; layers
    /// that were finished stay in the cache.
    pub async fn run(
        &self,
        job: &Job,
        node: &Arc<dyn NodePort>,
        uploads: &dyn Uploads,
        log: &Arc<dyn BuildLog>,
        cancel: &CancellationToken,
    ) -> Result<(Built, Hold), BuildError> {
        let started = Instant::now();
        let (template, build) = (&job.template, job.build);
        log.line(
            Level::Info,
            None,
            format!("Building template {template}/{build}"),
        );
        let mut hold = self.held.hold();
        let begun = Begun::default();
        let work = async {
            let mut work = Work {
                builder: self,
                job,
                node,
                uploads,
                log,
                begun: &begun,
                hold: &mut hold,
                sandbox: None,
                is_forced: job.recipe.force,
                kept: None,
                still_kept: StillKept::default(),
            };
            let last = work.steps().await?;
            work.finalize(last).await
        };
        let mut turn = None;
        let in_turn = async {
            // Waiting for others is not counted.
            turn = Some(self.turn(&job.team, log).await?);
            let outcome = tokio::time::timeout(BUILD_LIMIT, work).await;
            outcome.unwrap_or(Err(BuildError::TimedOut))
        };
        let outcome = tokio::select! {
            outcome = in_turn => outcome,
            () = cancel.cancelled() => Err(BuildError::Cancelled),
        };
        begun.end().await;
        // Not before: whoever cancels builds and begins others would have more sandboxes than places.
        drop(turn);
        match outcome {
            Ok(built) => {
                let took = started.elapsed().as_secs_f64();
                log.line(
                    Level::Info,
                    None,
                    format!("Build finished, took {took:.1}s"),
                );
                Ok((built, hold))
            }
            Err(error) => {
                let message = error.failure().message;
                log.line(Level::Error, None, format!("Build failed: {message}"));
                Err(error)
            }
        }
    }

    async fn turn(
        &self,
        team: &TeamId,
        log: &Arc<dyn BuildLog>,
    ) -> Result<turns::Turn, BuildError> {
        let waits = match self.turns.ask(team) {
            turns::Asked::Now(turn) => return Ok(turn),
            turns::Asked::Later(waits) => waits,
        };
        let text = "Waiting for other builds to end";
        log.line(Level::Info, None, text.into());
        let turn = waits.await;
        turn.map_err(|error| BuildError::Internal(error.to_string()))
    }
}

/// What the agent refused to do, in its words; `None` for other errors.
fn refused(error: &BuildError) -> Option<String> {
    match error {
        BuildError::Agent(EnvdError::Refused { message, .. }) => Some(message.clone()),
        BuildError::Agent(error @ EnvdError::CommandTimeout { .. }) => Some(error.to_string()),
        _ => None,
    }
}

/// What the agent says of a request that failed.
fn refusal(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    let said = serde_json::from_slice::<Refusal>(&answer.body);
    said.map_or_else(|_| answer.shown(), |refusal| refusal.message)
}
