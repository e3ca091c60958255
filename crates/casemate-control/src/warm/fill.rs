//! Keeps the pools as full as they should be.

use std::sync::Arc;

use casemate_rpc::{CreateRequest, NodeError};
use casemate_store::Build;
use casemate_types::{SandboxId, chain, steady};
use tokio::time::Instant;

use super::Key;
use super::pools::{Gone, Next};
use crate::Control;
use crate::nodes::Node;
use crate::sandboxes::create::CreateError;
use crate::sandboxes::place::PlacementError;
use crate::tasks::TaskKind;

/// For ever.
pub(crate) async fn run(control: Arc<Control>) {
    loop {
        let next = control.warm.lock().next(Instant::now());
        match next {
            Next::Make(key, request) => {
                let sandbox = SandboxId::random();
                control.warm.lock().begin(&key, &sandbox);
                let making = Arc::clone(&control);
                // A shutdown does not wait for it, but ends it.
                control.tasks.spawn(TaskKind::Reconciler, async move {
                    making.fill(&key, sandbox, *request).await;
                });
            }
            Next::End(Gone { sandbox, node }) => {
                control.warm.forget(&sandbox);
                control.take_back(&node, sandbox);
            }
            Next::Wait(until) => {
                let changed = control.warm.changed.notified();
                match until {
                    Some(at) => drop(tokio::time::timeout_at(at, changed).await),
                    None => changed.await,
                }
            }
        }
    }
}

/// Whatever becomes of the task: what it was making is not waited for.
struct Making<'a> {
    control: &'a Control,
    key: &'a Key,
    sandbox: &'a SandboxId,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        // At a shutdown it is dropped, too, and its sandbox ended with all others.
        if std::thread::panicking() {
            self.control.warm.lock().failed(self.key, self.sandbox);
        }
    }
}

impl Control {
    async fn fill(&self, key: &Key, sandbox: SandboxId, request: CreateRequest) {
        let _making = Making {
            control: self,
            key,
            sandbox: &sandbox.clone(),
        };
        match self.make_warm(key, &sandbox, request).await {
            Ok(node) if self.warm.lock().made(key, &sandbox) => {
                tracing::debug!(sandbox.id = %sandbox, "warm sandbox {sandbox} waits");
                self.warm.changed.notify_one();
                return self.watch_warm(&node, sandbox).await;
            }
            Ok(node) => self.take_back(&node.name, sandbox),
            Err(error) => {
                self.warm.lock().failed(key, &sandbox);
                match &error {
                    CreateError::Placement(refused) if is_refused(refused) => {
                        tracing::debug!(error = chain(&error), "made no warm sandbox");
                    }
                    // What the command said is its owner's.
                    CreateError::Startup(error) => tracing::warn!(
                        error = error.for_operators(), build.id = %key.build,
                        "the start command of a warm sandbox failed"
                    ),
                    _ => tracing::warn!(error = chain(&error), "could not make a warm sandbox"),
                }
            }
        }
        self.warm.changed.notify_one();
    }

    /// Made, started, and sure of its time. On an error nothing stays.
    async fn make_warm(
        &self,
        key: &Key,
        sandbox: &SandboxId,
        request: CreateRequest,
    ) -> Result<Arc<Node>, CreateError> {
        let build = self.store.build_by_id(&key.build).await?;
        let build = build.ok_or_else(|| gone(sandbox))?;
        let startup = request.startup.clone();
        let idle = self.config.warm_pool.idle;
        let request = CreateRequest {
            sandbox: sandbox.clone(),
            creator: self.owner.clone(),
            access_token: Some(self.keys.envd_token(sandbox)),
            life_ms: crate::sandboxes::create::millis(self.life_with(startup.as_ref(), idle)),
            ..request
        };
        let node = self.place_warm(&build, request).await?;
        self.warm.lock().placed(sandbox);
        self.warm.changed.notify_one();
        let started = async {
            self.started(&node.name, sandbox, startup.as_ref()).await?;
            let ends_at = steady::now() + idle;
            node.port
                .set_deadline(sandbox, ends_at)
                .await
                .map_err(PlacementError::from)?;
            // A template may have been deleted meanwhile.
            match self.store.build_by_id(&key.build).await? {
                Some(_) => Ok(()),
                None => Err(gone(sandbox).into()),
            }
        };
        let started: Result<(), CreateError> = started.await;
        if started.is_err() {
            self.take_back(&node.name, sandbox.clone());
        }
        started.map(|()| node)
    }

    /// At the first node that takes it, which fetches what it lacks.
    async fn place_warm(
        &self,
        build: &Build,
        request: CreateRequest,
    ) -> Result<Arc<Node>, PlacementError> {
        let mut refused = PlacementError::NoNode;
        for node in self.candidates(build) {
            self.warm.lock().asked(&request.sandbox, &node.name);
            match self.place_with(&node, build, request.clone()).await {
                Ok(_) => return Ok(node),
                // Nothing was made under its name.
                Err(error) if is_refused(&error) => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }
}

/// What it is made of was deleted meanwhile.
fn gone(sandbox: &SandboxId) -> PlacementError {
    NodeError::NotFound(sandbox.clone()).into()
}

/// The node has no room for it, or lacks what it is made of: another one may do better.
fn is_refused(error: &PlacementError) -> bool {
    matches!(
        error,
        PlacementError::Node(NodeError::Full { .. } | NodeError::Unsupported { .. })
    )
}
