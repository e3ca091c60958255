//! What control knows of its nodes: how each is reached, its last word, and what was asked of it.

mod choose;
pub mod drain;
pub(crate) mod placement;
mod presence;
pub(crate) mod reach;
pub mod removal;
pub mod simulation;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use casemate_rpc::carrier::Carrier;
use casemate_rpc::{NodeError, NodeInfo, NodePort};
use casemate_store::nodes::FIRST_NODE_GENERATION;
use casemate_types::{SandboxId, Timestamp, chain};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::artifacts::failing::Failing;
use crate::tasks::TaskKind;
use crate::{Control, reconcile};
use presence::Presence;

/// The alias under which the base template is known everywhere.
pub const BASE_ALIAS: &str = "base";

/// Whether a node speaks with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Not yet, or not any more.
    Connecting,
    Connected,
}

/// What is known of a node that joined, beside its own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What placement may ask for.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Its isolation kind.
    pub isolation: String,
    /// It takes new sandboxes.
    pub is_open: bool,
    /// Since when it is a member; `None` of one that is none.
    pub joined_at: Option<Timestamp>,
    /// What it has is to leave.
    pub is_draining: bool,
    /// Since when it is given up for lost.
    pub lost_at: Option<Timestamp>,
    /// Of its row: what was agreed with an older one does not count.
    pub generation: u64,
}

/// Of the one node of a machine of its own.
impl Default for Place {
    fn default() -> Self {
        Self {
            labels: Arc::default(),
            isolation: String::new(),
            is_open: true,
            joined_at: None,
            is_draining: false,
            lost_at: None,
            generation: FIRST_NODE_GENERATION,
        }
    }
}

/// A node as the administrator sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    pub info: NodeInfo,
    pub place: Place,
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

/// How a node is spoken with.
pub struct NodeLink {
    pub port: Arc<dyn NodePort>,
    /// Between it and the bucket, where there is one.
    pub carrier: Option<Arc<dyn Carrier>>,
}

impl From<Arc<dyn NodePort>> for NodeLink {
    fn from(port: Arc<dyn NodePort>) -> Self {
        Self {
            port,
            carrier: None,
        }
    }
}

impl<N: NodePort + 'static> From<Arc<N>> for NodeLink {
    fn from(port: Arc<N>) -> Self {
        Self::from(port as Arc<dyn NodePort>)
    }
}

/// One node, as this process speaks with it.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) port: Arc<dyn NodePort>,
    /// Between it and the bucket, where there is one.
    pub(crate) carrier: Option<Arc<dyn Carrier>>,
    /// It may have something that the bucket has not.
    pub(crate) has_news: Notify,
    /// What of it cannot be stored.
    pub(crate) failing: Failing,
    heard: Mutex<Heard>,
    place: watch::Sender<Place>,
    /// Whether it answers this server: it is there to be kept.
    pub(crate) answers: watch::Sender<bool>,
    /// The generation in which it was lost last, once places of its sandboxes were given back.
    lost_in: AtomicU64,
    created: AtomicU64,
    failed: AtomicU64,
    /// Creates that it was asked for and has not answered.
    starting: AtomicUsize,
    pub(crate) there: Presence,
    /// It was taken out: what follows it ends.
    pub(crate) removed: CancellationToken,
}

/// The last word of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    pub(crate) info: Option<NodeInfo>,
    pub(crate) connection: Option<Timestamp>,
    pub(crate) changed_at: Option<Timestamp>,
    /// Its templates are in the store.
    pub(crate) templates_known: bool,
    /// Names of layers and kept files that are there, as far as we know.
    pub(crate) layers: Arc<HashSet<String>>,
    /// What this server made there since it said how full it is.
    pub(crate) since: Since,
}

/// Sandboxes that are in no word of their node yet. Words are seconds apart: without these, all that is
/// asked meanwhile would go where the last word was best.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Since {
    sandboxes: u32,
    memory_mib: u64,
}

impl Heard {
    fn can_make(&self) -> bool {
        let ready = self.info.as_ref().is_some_and(|info| info.ready);
        self.connection.is_some() && self.templates_known && ready
    }
}

impl Node {
    fn new(name: &str, link: NodeLink) -> Self {
        Self {
            name: name.to_owned(),
            port: link.port,
            carrier: link.carrier,
            has_news: Notify::new(),
            failing: Failing::default(),
            heard: Mutex::default(),
            place: watch::Sender::new(Place::default()),
            answers: watch::Sender::new(false),
            lost_in: AtomicU64::new(0),
            created: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            starting: AtomicUsize::new(0),
            there: Presence::default(),
            removed: CancellationToken::new(),
        }
    }

    fn place(&self) -> Place {
        self.place.borrow().clone()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.place.borrow().is_open
    }

    /// With this memory limit, in MiB.
    pub(crate) fn create_succeeded(&self, memory_mib: u32) {
        self.created.fetch_add(1, Ordering::Relaxed);
        let since = &mut self.heard().since;
        since.sandboxes = since.sandboxes.saturating_add(1);
        since.memory_mib = since.memory_mib.saturating_add(memory_mib.into());
    }

    pub(crate) fn create_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

/// All nodes, by name.
pub(crate) struct Nodes {
    all: RwLock<BTreeMap<String, Arc<Node>>>,
    /// The same in a row, for whoever draws lots.
    row: RwLock<Arc<[Arc<Node>]>>,
    /// Something was heard.
    changed: watch::Sender<()>,
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            all: RwLock::default(),
            row: RwLock::new(Arc::new([])),
            changed: watch::Sender::new(()),
        }
    }
}

impl Nodes {
    /// [`NodeError::Unreachable`]: none of this name is known.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Node>, NodeError> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(name).cloned().ok_or(NodeError::Unreachable)
    }

    /// The same where only its port matters.
    pub(crate) fn port(&self, name: &str) -> Result<Arc<dyn NodePort>, NodeError> {
        Ok(Arc::clone(&self.get(name)?.port))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }

    /// Told of everything that is heard.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Those that speak with us.
    pub(crate) fn connected(&self) -> Vec<Arc<Node>> {
        let mut all = self.all();
        all.retain(|node| node.heard().connection.is_some());
        all
    }

    /// `None`: one of this name is there.
    fn add(&self, name: &str, link: NodeLink) -> Option<Arc<Node>> {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if all.contains_key(name) {
            return None;
        }
        let node = Arc::new(Node::new(name, link));
        all.insert(name.to_owned(), Arc::clone(&node));
        self.in_a_row(&all);
        Some(node)
    }

    fn remove(&self, name: &str) -> Option<Arc<Node>> {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let node = all.remove(name);
        self.in_a_row(&all);
        node
    }

    fn in_a_row(&self, all: &BTreeMap<String, Arc<Node>>) {
        let row = all.values().cloned().collect();
        *self.row.write().unwrap_or_else(PoisonError::into_inner) = row;
    }

    /// Changes what was heard of a node, for whoever waits for that.
    pub(crate) fn hear(&self, node: &Node, change: impl FnOnce(&mut Heard)) {
        change(&mut node.heard());
        self.changed.send_replace(());
    }
}

/// Sandboxes whose create is at a node right now.
#[derive(Clone, Default)]
pub(crate) struct Starting(Arc<Mutex<HashSet<SandboxId>>>);

pub(crate) struct StartingEntry {
    set: Starting,
    sandbox: SandboxId,
    node: Arc<Node>,
}

impl Starting {
    pub(crate) fn enter(&self, sandbox: &SandboxId, node: &Arc<Node>) -> StartingEntry {
        self.lock().insert(sandbox.clone());
        node.starting.fetch_add(1, Ordering::Relaxed);
        StartingEntry {
            set: self.clone(),
            sandbox: sandbox.clone(),
            node: Arc::clone(node),
        }
    }

    pub(crate) fn contains(&self, sandbox: &SandboxId) -> bool {
        self.lock().contains(sandbox)
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
        self.node.starting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Control {
    /// Speaks with one more node from now on, and keeps its sandboxes' promises. One of a name that
    /// is known changes nothing.
    pub fn add_node(self: &Arc<Self>, name: &str, link: impl Into<NodeLink>) {
        let Some(node) = self.nodes.add(name, link.into()) else {
            return;
        };
        let following = reconcile::run(Arc::clone(self), Arc::clone(&node));
        self.tasks.spawn(TaskKind::Reconciler, async move {
            tokio::select! {
                () = following => {}
                () = node.removed.cancelled() => {}
            }
        });
    }

    /// Speaks no more with a node. What it runs goes on.
    pub fn remove_node(&self, name: &str) {
        if let Some(node) = self.nodes.remove(name) {
            node.removed.cancel();
            self.nodes.hear(&node, |heard| heard.connection = None);
        }
    }

    /// The nodes that were ever heard of since the start.
    pub fn node_list(&self) -> Vec<NodeView> {
        let shown = |node: Arc<Node>| {
            let heard = node.heard().clone();
            Some(NodeView {
                info: heard.info?,
                place: node.place(),
                connection: match heard.connection {
                    Some(_) => Connection::Connected,
                    None => Connection::Connecting,
                },
                changed_at: heard.changed_at.unwrap_or(Timestamp::UNIX_EPOCH),
                create_successes: node.created.load(Ordering::Relaxed),
                create_fails: node.failed.load(Ordering::Relaxed),
                starting: node.starting.load(Ordering::Relaxed),
            })
        };
        self.nodes.all().into_iter().filter_map(shown).collect()
    }

    /// Whether a node was heard of and we are not about to stop (`GET /health`).
    pub fn is_healthy(&self) -> bool {
        let mut all = self.nodes.all().into_iter();
        all.any(|node| node.heard().info.is_some()) && !self.tasks.stopping()
    }

    /// Waits until a node was heard of that can make sandboxes.
    pub async fn can_make(&self) {
        let mut changed = self.nodes.changed.subscribe();
        // The sender is ours, so it does not go.
        while !self.can_make_now() && changed.changed().await.is_ok() {}
    }

    /// Whether some node that this server speaks with makes sandboxes.
    pub fn can_make_now(&self) -> bool {
        self.nodes.all().iter().any(|node| node.heard().can_make())
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
        let mut found = Readiness {
            store,
            node: false,
            base_template: false,
        };
        for node in self.nodes.connected() {
            let heard = node.heard();
            let Some(info) = &heard.info else { continue };
            found.node |= info.ready && !self.tasks.stopping();
            let mut templates = info.templates.iter();
            found.base_template |=
                heard.templates_known && templates.any(|t| t.alias == BASE_ALIAS);
        }
        found
    }

    /// Sandboxes that run or start, of all teams.
    pub fn sandbox_total(&self) -> usize {
        self.quota.total()
    }

    /// Creates that wait at the nodes for admission.
    pub fn queue_length(&self) -> u32 {
        let waiting = |node: Arc<Node>| node.heard().info.as_ref().map_or(0, |i| i.queue_length);
        let all = self.nodes.all();
        all.into_iter().map(waiting).fold(0, u32::saturating_add)
    }
}
