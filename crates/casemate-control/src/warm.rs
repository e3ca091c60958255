//! Sandboxes of templates with a start command that are started before anybody asks for them.
//!
//! ```text
//! a create ──▶ is one ready? ── yes ─▶ claim it at the node ─▶ row, route, answer
//!    │              └── no ──▶ made and started as any other
//!    └─ notes the use ─▶ fill: as many as were asked for lately, within limits
//! ```
//!
//! They have no row and no route, and their team does not know them. Those of a process that died are
//! ended by the next one ([`crate::reconcile`]), and by their deadline at the latest.

mod fill;
mod pools;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use casemate_build::agent;
use casemate_rpc::{ClaimRequest, CreateReply, CreateRequest, NodeError};
use casemate_store::{Build, BuildId};
use casemate_types::{CompiledPolicy, SandboxId, TeamId, TemplateId, chain};
use serde_json::json;
use tokio::sync::Notify;

use crate::Control;
use crate::config::WarmPoolConfig;
pub(crate) use fill::run;
use pools::{Pools, Ready};

/// An agent that serves takes its variables at once.
const INIT_MAX: Duration = Duration::from_secs(10);

/// Sandboxes that can stand for each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    team: TeamId,
    build: BuildId,
    /// What they may reach. It holds from their start on, as a start command may have opened a
    /// connection that a narrower one would refuse.
    network: String,
}

impl Key {
    pub(crate) fn new(team: &TeamId, build: &Build, network: &CompiledPolicy) -> Self {
        Self {
            team: team.clone(),
            build: build.id,
            network: serde_json::to_string(network).unwrap_or_default(),
        }
    }
}

/// All of them of this process.
pub(crate) struct Warm {
    pools: Mutex<Pools>,
    changed: Notify,
}

/// One that is being given away. Dropped, it waits on.
pub(crate) struct Taken<'a> {
    from: &'a Warm,
    key: &'a Key,
    ready: Ready,
    given: bool,
}

impl Taken<'_> {
    pub(crate) fn sandbox(&self) -> &SandboxId {
        &self.ready.sandbox
    }

    /// It is the caller's to look after.
    pub(crate) fn give(mut self) -> SandboxId {
        self.given = true;
        self.from.forget(&self.ready.sandbox);
        self.ready.sandbox.clone()
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.given {
            self.from.lock().put_back(self.key, &self.ready);
        }
    }
}

impl Warm {
    pub(crate) fn new(limits: WarmPoolConfig) -> Self {
        Self {
            pools: Mutex::new(Pools::new(limits)),
            changed: Notify::new(),
        }
    }

    /// Somebody asks for one such; `request` makes another.
    pub(crate) fn used(&self, key: &Key, request: CreateRequest) {
        self.lock().used(key, request);
        self.changed.notify_one();
    }

    /// The one that began to wait last: the others have had more of their time.
    pub(crate) fn take<'a>(&'a self, key: &'a Key) -> Option<Taken<'a>> {
        let ready = self.lock().take(key)?;
        Some(Taken {
            from: self,
            key,
            ready,
            given: false,
        })
    }

    /// Whether it is one that waits or is being made.
    pub(crate) fn has(&self, sandbox: &SandboxId) -> bool {
        self.lock().has(sandbox)
    }

    /// It is gone, or somebody's.
    pub(crate) fn forget(&self, sandbox: &SandboxId) {
        if self.lock().forget(sandbox) {
            self.changed.notify_one();
        }
    }

    /// Those that wait and are not among these are gone.
    pub(crate) fn keep_only(&self, running: impl Fn(&SandboxId) -> bool) {
        self.lock().keep_only(running);
        self.changed.notify_one();
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.lock().waiting()
    }

    fn lock(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().expect("no holder of this lock panics")
    }
}

impl Control {
    /// How many started sandboxes wait for being asked for.
    pub fn warm_total(&self) -> usize {
        self.warm.count()
    }

    /// Ends those of a template that is gone.
    pub(crate) fn drop_warm_of(&self, template: &TemplateId) {
        for sandbox in self.warm.lock().drop_of(template) {
            self.take_back(sandbox);
        }
    }

    /// Ends all of them: this process ends.
    pub(crate) async fn drop_warm(&self) {
        let ends = self.warm.lock().drop_all().into_iter().map(|sandbox| {
            let node = std::sync::Arc::clone(&self.node);
            tokio::spawn(async move {
                let killed = node.kill(&sandbox, casemate_types::EndReason::Killed);
                // What is left goes with its deadline, or with the next process.
                drop(tokio::time::timeout(END_MAX, killed).await);
            })
        });
        for end in ends.collect::<Vec<_>>() {
            let _ = end.await;
        }
    }

    /// Gives a warm sandbox away, with the variables of whoever asked for it. `None`: it is not to be
    /// had, and gone, or is being ended.
    pub(crate) async fn claim(
        &self,
        taken: Taken<'_>,
        claim: ClaimRequest,
        envs: &std::collections::BTreeMap<String, String>,
    ) -> Option<CreateReply> {
        let sandbox = taken.give();
        let claimed = self.node.claim(&sandbox, claim).await;
        let lost = match claimed {
            Ok(reply) if envs.is_empty() => return Some(reply),
            Ok(reply) => match self.set_envs(&sandbox, envs).await {
                Ok(()) => return Some(reply),
                Err(why) => why,
            },
            // Its time was over.
            Err(NodeError::NotFound(_)) => return None,
            Err(error) => chain(&error),
        };
        tracing::warn!(
            sandbox.id = %sandbox, error = lost,
            "could not give away a warm sandbox; another is made"
        );
        self.take_back(sandbox);
        None
    }

    async fn set_envs(
        &self,
        sandbox: &SandboxId,
        envs: &std::collections::BTreeMap<String, String>,
    ) -> Result<(), String> {
        let token = self.keys.envd_token(sandbox);
        let envd = agent::of(&self.node, sandbox, &token).map_err(|error| chain(&error))?;
        let body = json!({"accessToken": token, "envVars": envs}).to_string();
        let answer = envd.post_stream("/init", body.as_bytes(), INIT_MAX).await;
        let answer = answer.map_err(|error| chain(&error))?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(format!("its agent answers {}", answer.status)),
        }
    }
}

/// How long the end of one may take when the process ends.
const END_MAX: Duration = Duration::from_secs(2);
