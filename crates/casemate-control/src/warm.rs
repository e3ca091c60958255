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

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use casemate_build::agent;
use casemate_rpc::{ClaimRequest, CreateReply, CreateRequest, NodeError, NodePort};
use casemate_store::{Build, BuildId};
use casemate_types::{CompiledPolicy, EndReason, SandboxId, TeamId, TemplateId, chain};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::Control;
use crate::config::WarmPoolConfig;
use crate::nodes::Node;
use crate::sandboxes::startup::until_not_ready;
use crate::tasks::TaskKind;
pub(crate) use fill::run;
use pools::{Gone, Pools, Ready};

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

    /// Where it is.
    pub(crate) fn node(&self) -> &str {
        &self.ready.node
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
            self.from.changed.notify_one();
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

    /// It is gone, or is to go; whether it was one of these.
    pub(crate) fn ended(&self, sandbox: &SandboxId) -> bool {
        let was = self.lock().ended(sandbox);
        if was {
            self.changed.notify_one();
        }
        was
    }

    /// It is not to wait any more.
    pub(crate) fn forget(&self, sandbox: &SandboxId) {
        if self.lock().forget(sandbox) {
            self.changed.notify_one();
        }
    }

    /// Those that wait now, at a node.
    pub(crate) fn ready_at(&self, node: &str) -> HashSet<SandboxId> {
        self.lock().ready_at(node)
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

    /// Somebody was given one such; `request` makes another.
    pub(crate) fn warm_used(&self, key: &Key, request: CreateRequest) {
        let gone = self.warm.lock().used(key, request);
        self.warm.changed.notify_one();
        for Gone { sandbox, node } in gone {
            self.take_back(&node, sandbox);
        }
    }

    /// Ends those of a template that is gone, or that not everybody may use any more; then what lay
    /// below them can go.
    pub(crate) fn drop_warm_of(self: &Arc<Self>, template: &TemplateId) {
        let gone = self.warm.lock().drop_of(template);
        self.end_warm(gone);
    }

    /// Ends those of a template's builds before this one.
    pub(crate) fn drop_warm_before(self: &Arc<Self>, template: &TemplateId, key: &Key) {
        let gone = self.warm.lock().drop_former(template, key);
        self.end_warm(gone);
    }

    /// Ends those that wait at a node, which is to be taken away.
    pub(crate) fn drop_warm_at(self: &Arc<Self>, node: &str) {
        let gone = self.warm.lock().drop_at(node);
        if !gone.is_empty() {
            self.warm.changed.notify_one();
        }
        self.end_warm(gone);
    }

    fn end_warm(self: &Arc<Self>, gone: Vec<Gone>) {
        if gone.is_empty() {
            return;
        }
        let control = Arc::clone(self);
        self.tasks.spawn(TaskKind::Cleanup, async move {
            for Gone { sandbox, node } in gone {
                control.recent.doom(&sandbox);
                // What is left goes with its deadline.
                if let Ok(node) = control.nodes.port(&node) {
                    drop(timeout(END_MAX, node.kill(&sandbox, EndReason::Killed)).await);
                }
            }
            crate::reconcile::drop_unwanted_soon(&control);
        });
    }

    /// Ends all of them: this process ends.
    pub(crate) async fn drop_warm(&self) {
        let gone = self.warm.lock().drop_all();
        let ends = gone.into_iter().filter_map(|Gone { sandbox, node }| {
            let node = self.nodes.port(&node).ok()?;
            Some(tokio::spawn(async move {
                let killed = node.kill(&sandbox, EndReason::Killed);
                // What is left goes with its deadline, or with the next process.
                drop(timeout(END_MAX, killed).await);
            }))
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
        envs: &BTreeMap<String, String>,
    ) -> Option<CreateReply> {
        let (key, name) = (taken.key, taken.ready.node.clone());
        let sandbox = taken.give();
        let Ok(node) = self.nodes.port(&name) else {
            return None;
        };
        // Whether what was started runs still is not asked here, but watched ahead. Side by side:
        // neither changes what the other does.
        let (claimed, prepared) = tokio::join!(
            timeout(CLAIM_MAX, node.claim(&sandbox, claim)),
            timeout(CLAIM_MAX, self.prepare(&node, &sandbox, envs)),
        );
        let lost = match (claimed, prepared) {
            (Ok(Ok(reply)), Ok(Ok(()))) => {
                self.warm.lock().given(key);
                return Some(reply);
            }
            // Its time was over.
            (Ok(Err(NodeError::NotFound(_))), _) => return None,
            (Ok(Err(error)), _) => chain(&error),
            (Ok(Ok(_)), Ok(Err(why))) => why,
            (Err(_), _) | (_, Err(_)) => format!("no answer within {CLAIM_MAX:?}"),
        };
        tracing::warn!(
            sandbox.id = %sandbox, error = lost,
            "could not give away a warm sandbox; another is made"
        );
        self.warm.lock().failed(key, &sandbox);
        self.take_back(&name, sandbox);
        None
    }

    /// As long as a sandbox waits, sees to it that what was started in it runs; ends it otherwise.
    /// One that was given away meanwhile is let alone with the agent's next answer.
    pub(crate) async fn watch_warm(&self, node: &Node, sandbox: SandboxId) {
        let token = self.keys.envd_token(&sandbox);
        let lost = match agent::of(&node.port, &sandbox, &token) {
            Ok(envd) => until_not_ready(&envd, || self.warm.has(&sandbox)).await,
            Err(error) => Some(chain(&error)),
        };
        if let Some(why) = lost
            && self.warm.ended(&sandbox)
        {
            tracing::warn!(sandbox.id = %sandbox, error = why, "ending a warm sandbox");
            self.take_back(&node.name, sandbox);
        }
    }

    /// Sets the variables.
    async fn prepare(
        &self,
        node: &Arc<dyn NodePort>,
        sandbox: &SandboxId,
        envs: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        if envs.is_empty() {
            return Ok(());
        }
        let token = self.keys.envd_token(sandbox);
        let envd = agent::of(node, sandbox, &token).map_err(|error| chain(&error))?;
        let body = json!({"accessToken": token, "envVars": envs}).to_string();
        let answer = envd.post_stream("/init", body.as_bytes(), CLAIM_MAX).await;
        let answer = answer.map_err(|error| chain(&error))?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(format!("its agent answers {}", answer.status)),
        }
    }
}

/// A node and an agent that are well need milliseconds. Behind it the client waits for another one.
const CLAIM_MAX: Duration = Duration::from_secs(5);
/// How long the end of one may take when the process ends.
const END_MAX: Duration = Duration::from_secs(2);
