//! What control knows of the node: its last word, and what was asked of it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use casemate_rpc::NodeInfo;
use casemate_types::{SandboxId, Timestamp, chain};

use crate::Control;

/// The alias under which the base template is known everywhere.
pub const BASE_ALIAS: &str = "base";

/// Whether the node speaks with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Not yet, or not any more.
    Connecting,
    Connected,
}

/// The node as the administrator sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    pub info: NodeInfo,
    pub connection: Connection,
    pub changed_at: Timestamp,
    pub create_successes: u64,
    pub create_fails: u64,
    pub starting: usize,
}

/// What must be at hand before a sandbox can be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    pub store: bool,
    pub node: bool,
    pub base_template: bool,
}

impl Readiness {
    pub fn is_ready(&self) -> bool {
        self.store && self.node && self.base_template
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    created: AtomicU64,
    failed: AtomicU64,
}

impl Counters {
    pub(crate) fn create_succeeded(&self) {
        self.created.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn create_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sandboxes whose create is at the node right now.
#[derive(Clone, Default)]
pub(crate) struct Starting(Arc<Mutex<HashSet<SandboxId>>>);

pub(crate) struct StartingEntry {
    set: Starting,
    sandbox: SandboxId,
}

impl Starting {
    pub(crate) fn enter(&self, sandbox: &SandboxId) -> StartingEntry {
        self.lock().insert(sandbox.clone());
        StartingEntry {
            set: self.clone(),
            sandbox: sandbox.clone(),
        }
    }

    pub(crate) fn contains(&self, sandbox: &SandboxId) -> bool {
        self.lock().contains(sandbox)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<SandboxId>> {
        self.0
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

impl Drop for StartingEntry {
    fn drop(&mut self) {
        self.set.lock().remove(&self.sandbox);
    }
}

/// The node's last word.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    pub(crate) info: Option<NodeInfo>,
    pub(crate) connection: Option<Timestamp>,
    pub(crate) changed_at: Option<Timestamp>,
    /// Its templates are in the store.
    pub(crate) templates_known: bool,
}

impl Control {
    /// The connected node's name.
    pub(crate) fn node_name(&self) -> Option<String> {
        let heard = self.heard.borrow();
        heard.connection?;
        heard.info.as_ref().map(|info| info.node.clone())
    }

    /// The nodes that were ever heard of since the start.
    pub fn node_list(&self) -> Vec<NodeView> {
        let heard = self.heard.borrow().clone();
        let connection = match heard.connection {
            Some(_) => Connection::Connected,
            None => Connection::Connecting,
        };
        let view = |info| NodeView {
            info,
            connection,
            changed_at: heard.changed_at.unwrap_or(Timestamp::UNIX_EPOCH),
            create_successes: self.counters.created.load(Ordering::Relaxed),
            create_fails: self.counters.failed.load(Ordering::Relaxed),
            starting: self.starting.count(),
        };
        heard.info.map(view).into_iter().collect()
    }

    /// Whether a node was heard of and we are not about to stop (`GET /health`).
    pub fn is_healthy(&self) -> bool {
        self.heard.borrow().info.is_some() && !self.tasks.stopping()
    }

    /// Waits until a node was heard of that can make sandboxes.
    pub async fn can_make(&self) {
        let mut heard = self.heard.subscribe();
        let can = heard.wait_for(|heard| {
            let info = heard.info.as_ref();
            heard.connection.is_some() && heard.templates_known && info.is_some_and(|i| i.ready)
        });
        // The sender is ours, so it does not go.
        let _ = can.await;
    }

    /// Whether a sandbox can be created now, and what is missing.
    pub async fn readiness(&self) -> Readiness {
        let store = match self.store.ping().await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(error = chain(&error), "the store does not answer");
                false
            }
        };
        let heard = self.heard.borrow();
        let info = heard.info.as_ref().filter(|_| heard.connection.is_some());
        let has_base = |info: &NodeInfo| info.templates.iter().any(|t| t.alias == BASE_ALIAS);
        Readiness {
            store,
            node: info.is_some_and(|info| info.ready) && !self.tasks.stopping(),
            base_template: heard.templates_known && info.is_some_and(has_base),
        }
    }

    /// Sandboxes that run or start, of all teams.
    pub fn sandbox_total(&self) -> usize {
        self.quota.total()
    }

    /// Creates that wait at the nodes for admission.
    pub fn queue_length(&self) -> u32 {
        let heard = self.heard.borrow();
        heard.info.as_ref().map_or(0, |info| info.queue_length)
    }
}
