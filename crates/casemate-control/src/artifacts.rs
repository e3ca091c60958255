//! What nodes keep beyond themselves: layers of templates and files of snapshots in the bucket, so that
//! any node can have them.
//!
//! A node's keeper has its carrier store what rows need and the bucket has not; whoever asks a node for
//! a sandbox has it fetch what it lacks. So do files of sandboxes that are paused ([`paused`]). Nothing waits for the former: until it is stored, a template
//! runs where it was made. What is stored a node may [evict](spare), and fetches again. Bytes never pass
//! here.

mod at_hand;
mod come;
pub(crate) mod failing;
mod hold;
mod leave;
pub(crate) mod paused;
mod spare;
pub(crate) mod sweep;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use casemate_artifacts::Artifacts;
use casemate_rpc::NodeError;
use casemate_rpc::carrier::CarrierError;
use casemate_store::{Build, StoreError};
use casemate_types::{LayerId, Portable, SnapshotId, chain};
use tokio::sync::watch;

use crate::Control;
use crate::nodes::Node;

/// How often it is looked for what a node has, where nothing says that there is something new.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Nodes that are asked side by side whether they have something, and how long each may think.
const ASKED_AT_ONCE: usize = 32;
/// Names that one question to the store has.
pub(crate) const ASKED_MAX: usize = 1000;
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub(crate) enum CarryError {
    #[error("the node does not answer")]
    Node(#[from] NodeError),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    #[error("{0} is in no bucket")]
    Nowhere(String),
    #[error("it takes longer than a client waits")]
    TooSlow,
}

/// What a name in a build means; `None` for what is the node's own, as its base.
fn portable(name: &str) -> Option<Portable> {
    match (LayerId::parse(name), SnapshotId::parse(name)) {
        (Ok(layer), _) => Some(Portable::Layer(layer)),
        (Err(_), Ok(files)) => Some(Portable::Snapshot(files)),
        (Err(_), Err(_)) => None,
    }
}

impl Control {
    /// Where nodes' carriers store.
    pub fn bucket(&self) -> Option<&Artifacts> {
        self.config.bucket.as_ref()
    }

    /// Times since the start that something could not be stored in the bucket, or had from there.
    pub fn bucket_failures(&self) -> u64 {
        self.bucket_failures.load(Ordering::Relaxed)
    }

    fn failed_to_carry(&self, error: &CarryError) {
        if error.is_of_bucket() {
            self.bucket_failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Some node may have something that the bucket has not.
    pub(crate) fn has_news(&self) {
        for node in self.nodes.all() {
            node.has_news.notify_one();
        }
    }

    /// A node that has all that a build needs, of those that may be it. What another server had made
    /// lately is not known here yet: then all are asked.
    pub(crate) async fn holder(
        &self,
        build: &Build,
        may: impl Fn(&Node) -> bool,
    ) -> Option<Arc<Node>> {
        let mut nodes = self.nodes.connected();
        nodes.retain(|node| may(node));
        if let Some(known) = nodes.iter().find(|node| node.has_all_of(build)) {
            return Some(Arc::clone(known));
        }
        for some in nodes.chunks(ASKED_AT_ONCE) {
            let asked = some.iter().map(|node| async move {
                let missing = node.port.missing(&build.layers, build.files.as_ref(), None);
                let answer = tokio::time::timeout(ANSWER_PATIENCE, missing).await;
                matches!(answer, Ok(Ok(missing)) if missing.is_empty())
            });
            let answers = futures_util::future::join_all(asked).await;
            if let Some(at) = answers.iter().position(|has_all| *has_all) {
                return some.get(at).cloned();
            }
        }
        None
    }
}

/// What a node has that others may need, as far as we know.
pub(crate) fn there(node: &Node) -> Vec<Portable> {
    let layers = Arc::clone(&node.heard().layers);
    layers.iter().filter_map(|name| portable(name)).collect()
}

/// Of what a build needs, that which nodes do not have by themselves.
pub(crate) fn carried_names(build: &Build) -> Vec<String> {
    let layers = build.layers.iter().filter(|name| portable(name).is_some());
    let files = build.files.iter().map(SnapshotId::to_string);
    layers.cloned().chain(files).collect()
}

/// For ever, beside what follows the node. `keeps` says whether this server is its keeper.
pub(crate) async fn run(
    control: &Arc<Control>,
    node: &Arc<Node>,
    keeps: Option<watch::Receiver<bool>>,
) {
    tokio::join!(look(control, node, keeps), hold::run(control, node));
}

async fn look(control: &Arc<Control>, node: &Arc<Node>, mut keeps: Option<watch::Receiver<bool>>) {
    let mut stored = HashSet::new();
    let mut connected = control.nodes.changes();
    loop {
        while node.heard().connection.is_none() {
            // The sender goes with control, and we before it.
            let _ = connected.changed().await;
        }
        let is_keeper = keeps
            .as_mut()
            .is_none_or(|keeps| *keeps.borrow_and_update());
        let looked = async {
            // Of one node nothing has to be chosen, and listing makes it measure.
            if node.carrier.is_none() && control.nodes.all().len() < 2 {
                return Ok(());
            }
            let there = at_hand::look(control, node).await?;
            if is_keeper {
                leave::store_due(control, node, &there, &mut stored).await?;
                spare::tell(control, node, &there).await?;
            }
            Ok::<_, CarryError>(())
        };
        if let Err(error) = looked.await {
            control.failed_to_carry(&error);
            if let Some(untold) = node.failing.layers.happened() {
                tracing::warn!(
                    node = node.name,
                    untold,
                    error = chain(&error),
                    "could not store what node {} keeps; trying again later",
                    node.name
                );
            }
        }
        let taken_over = async {
            let changed = match &mut keeps {
                Some(keeps) => keeps.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = node.has_news.notified() => {}
            () = taken_over => {}
        }
    }
}
