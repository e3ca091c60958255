//! The nodes that an edge asks: whom API servers name, and while none of them answers those that were
//! named last, also before a restart.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use casemate_rpc::NodePort;
use casemate_rpc::control::NodeAddress;
use casemate_types::chain;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::servers::Servers;

/// How often API servers are asked who is there.
const LIST_EVERY: Duration = Duration::from_secs(3);
/// … and no more often, whatever routes name.
const LIST_PAUSE: Duration = Duration::from_millis(200);
/// How long a request waits for a node that a route names and nobody told us of yet.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(3);
/// Of the file.
const VERSION: u32 = 1;

type Reach = dyn Fn(&NodeAddress) -> Arc<dyn NodePort> + Send + Sync;

/// See the module.
pub struct NodeTable {
    nodes: watch::Sender<Arc<BTreeMap<String, Node>>>,
    reach: Box<Reach>,
    wanted: Notify,
}

#[derive(Clone)]
struct Node {
    address: String,
    port: Arc<dyn NodePort>,
}

/// Why the list of nodes was not read or kept.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("cannot {what} {path}", path = path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is no list of nodes that this casemate knows", path = path.display())]
    Unreadable { path: PathBuf },
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    nodes: Vec<NodeAddress>,
}

impl NodeTable {
    /// Without nodes; `reach` makes the way to one.
    pub fn new(reach: impl Fn(&NodeAddress) -> Arc<dyn NodePort> + Send + Sync + 'static) -> Self {
        Self {
            nodes: watch::Sender::new(Arc::default()),
            reach: Box::new(reach),
            wanted: Notify::new(),
        }
    }

    /// These there are from now on. The way to one whose address is the same stays; connections into
    /// sandboxes of one that goes stay too. Whether anything changed.
    pub fn set(&self, list: &[NodeAddress]) -> bool {
        self.nodes.send_if_modified(|nodes| {
            let same = list.len() == nodes.len()
                && list.iter().all(|one| {
                    nodes
                        .get(&one.node)
                        .is_some_and(|node| node.address == one.address)
                });
            if same {
                return false;
            }
            let next = list.iter().map(|one| {
                let known = nodes.get(&one.node);
                let known = known.filter(|node| node.address == one.address);
                let node = known.cloned().unwrap_or_else(|| Node {
                    address: one.address.clone(),
                    port: (self.reach)(one),
                });
                (one.node.clone(), node)
            });
            let next = next.collect();
            *nodes = Arc::new(next);
            true
        })
    }

    /// The way to a node. One that is not known may have joined just now: then API servers are asked
    /// before it is given up.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn port(&self, name: &str) -> Option<Arc<dyn NodePort>> {
        let mut nodes = self.nodes.subscribe();
        if !nodes.borrow().contains_key(name) {
            self.ask();
            let known = nodes.wait_for(|nodes| nodes.contains_key(name));
            // What did not come says so below.
            let _ = timeout(NEWCOMER_PATIENCE, known).await;
        }
        self.known(name)
    }

    /// Has API servers asked soon who is there.
    pub(crate) fn ask(&self) {
        self.wanted.notify_one();
    }

    /// The way to a node, if it is known.
    pub(crate) fn known(&self, name: &str) -> Option<Arc<dyn NodePort>> {
        let nodes = self.nodes.borrow();
        nodes.get(name).map(|node| Arc::clone(&node.port))
    }

    pub(crate) fn all(&self) -> Vec<(String, Arc<dyn NodePort>)> {
        let nodes = self.nodes.borrow();
        let all = nodes
            .iter()
            .map(|(name, node)| (name.clone(), Arc::clone(&node.port)));
        all.collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.nodes.borrow().len()
    }

    /// Waits until there is one.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn any(&self) {
        let mut nodes = self.nodes.subscribe();
        // It ends with us, who hold its other end.
        let _ = nodes.wait_for(|nodes| !nodes.is_empty()).await;
    }

    fn list(&self) -> Vec<NodeAddress> {
        let nodes = self.nodes.borrow();
        let list = nodes.iter().map(|(name, node)| NodeAddress {
            node: name.clone(),
            address: node.address.clone(),
        });
        list.collect()
    }

    /// Takes the list that was kept; none is no error.
    pub fn read(&self, path: &Path) -> Result<(), ListError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                let (what, path) = ("read", path.into());
                return Err(ListError::Io { what, path, source });
            }
        };
        match serde_json::from_slice::<Kept>(&text) {
            Ok(kept) if kept.version == VERSION => {
                self.set(&kept.nodes);
                Ok(())
            }
            Ok(_) | Err(_) => Err(ListError::Unreadable { path: path.into() }),
        }
    }

    /// Replaces the file as a whole. It is not synced: what a loss of power takes back is old, and
    /// the next answer of an API server replaces it.
    fn write(&self, path: &Path) -> Result<(), ListError> {
        let kept = Kept {
            version: VERSION,
            nodes: self.list(),
        };
        let beside = path.with_extension("new");
        let written = || {
            let mut file = fs::File::create(&beside)?;
            file.write_all(&serde_json::to_vec_pretty(&kept)?)?;
            fs::rename(&beside, path)
        };
        written().map_err(|source| ListError::Io {
            what: "write",
            path: path.into(),
            source,
        })
    }
}

/// Asks API servers who is there, every few seconds, and when a route names somebody new or a node is
/// not reached, and keeps the list at `path`. While none answers the list stays. Never returns.
pub async fn keep_listed(table: Arc<NodeTable>, servers: Arc<dyn Servers>, path: PathBuf) {
    let mut answers = None;
    loop {
        match servers.nodes().await {
            Ok(list) => {
                if answers.replace(true) == Some(false) {
                    info!("an API server answers again");
                }
                if table.set(&list) {
                    info!(nodes = list.len(), "there are {} nodes now", list.len());
                    if let Err(error) = table.write(&path) {
                        let error = chain(&error);
                        warn!(error, "the list of nodes is not kept for the next start");
                    }
                }
            }
            Err(error) => {
                // The same every few seconds would fill the log.
                if answers.replace(false) != Some(false) {
                    let nodes = table.count();
                    let error = chain(&error);
                    warn!(
                        error,
                        nodes, "no API server says who is there; going on with {nodes} nodes"
                    );
                }
            }
        }
        tokio::time::sleep(LIST_PAUSE).await;
        // Asked for in between, it is asked again at once.
        let _ = timeout(LIST_EVERY, table.wanted.notified()).await;
    }
}
