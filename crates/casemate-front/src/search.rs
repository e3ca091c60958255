//! Asking all nodes at once who has a sandbox.
//!
//! It is the way that needs nobody but the nodes, and the dearest: each search is a call to each node.
//! So there is one for each sandbox at a time, whoever waits for it, and only so many a second: what
//! strangers make up must not keep nodes busy.
//!
//! A node is believed in this by itself only while no API server can be asked: what comes for a sandbox
//! bears its tokens, and a node that is in foreign hands would have them by saying yes to everything.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_cluster::Seldom;
use casemate_rpc::{Located, NodeError, NodePort};
use casemate_types::SandboxId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use crate::memory::Place;
use crate::nodes::NodeTable;
use crate::servers::Servers;

/// Searches that begin in a second, over time and at once.
const PER_SECOND: f64 = 100.0;
const BURST: f64 = 200.0;
/// How long nodes have to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long the others still have once one says that it is there: a younger run counts, and a node
/// that hangs should hold nobody up.
const OTHERS_MAX: Duration = Duration::from_millis(100);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Found(Place),
    /// Every node says no.
    Absent,
    /// Somebody did not answer, or has it and does not know how traffic comes in.
    Unsure,
    /// There are too many searches.
    Busy,
}

pub(crate) struct Searches {
    nodes: Arc<NodeTable>,
    servers: Arc<dyn Servers>,
    flights: Mutex<HashMap<SandboxId, watch::Receiver<Option<Outcome>>>>,
    allowance: Mutex<Allowance>,
    begun: AtomicU64,
    refused: AtomicU64,
    contradicted: Seldom,
}

/// What may be asked of nodes for the sake of requests that nobody vouches for.
pub(crate) struct Allowance {
    left: f64,
    at: Instant,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            left: BURST,
            at: Instant::now(),
        }
    }
}

impl Allowance {
    pub(crate) fn take(&mut self) -> bool {
        let now = Instant::now();
        let grown = now.duration_since(self.at).as_secs_f64() * PER_SECOND;
        (self.left, self.at) = ((self.left + grown).min(BURST), now);
        let is_left = self.left >= 1.0;
        if is_left {
            self.left -= 1.0;
        }
        is_left
    }
}

impl Searches {
    pub(crate) fn new(nodes: Arc<NodeTable>, servers: Arc<dyn Servers>) -> Self {
        Self {
            nodes,
            servers,
            flights: Mutex::default(),
            allowance: Mutex::default(),
            begun: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            contradicted: Seldom::default(),
        }
    }

    /// Where a sandbox is by the nodes' own word.
    ///
    /// # Cancel safety
    /// A search that began goes on, for [`ANSWER_MAX`] at most.
    pub(crate) async fn search(self: &Arc<Self>, sandbox: &SandboxId) -> Outcome {
        let mut flight = {
            let mut flights = self.flights();
            match flights.get(sandbox) {
                Some(flight) => flight.clone(),
                None if !self.may() => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    return Outcome::Busy;
                }
                None => {
                    let (answer, flight) = watch::channel(None);
                    flights.insert(sandbox.clone(), flight.clone());
                    self.begun.fetch_add(1, Ordering::Relaxed);
                    let flight = Flight {
                        searches: Arc::clone(self),
                        sandbox: sandbox.clone(),
                        answer,
                    };
                    tokio::spawn(flight.fly());
                    flights[sandbox].clone()
                }
            }
        };
        let landed = flight.wait_for(Option::is_some).await;
        // Without an answer its task was ended.
        landed
            .ok()
            .and_then(|outcome| outcome.clone())
            .unwrap_or(Outcome::Unsure)
    }

    /// How many began, and how many were too many.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.begun), count(&self.refused))
    }

    fn may(&self) -> bool {
        let allowance = self.allowance.lock();
        allowance.unwrap_or_else(PoisonError::into_inner).take()
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<SandboxId, watch::Receiver<Option<Outcome>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A search under way.
struct Flight {
    searches: Arc<Searches>,
    sandbox: SandboxId,
    answer: watch::Sender<Option<Outcome>>,
}

impl Flight {
    async fn fly(self) {
        let outcome = match ask_all(self.searches.nodes.all(), &self.sandbox).await {
            Outcome::Found(place) => self.searches.confirmed(&self.sandbox, place).await,
            other => other,
        };
        self.answer.send_replace(Some(outcome));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.searches.flights().remove(&self.sandbox);
    }
}

async fn ask_all(nodes: Vec<(String, Arc<dyn NodePort>)>, sandbox: &SandboxId) -> Outcome {
    if nodes.is_empty() {
        // Nobody told us of any.
        return Outcome::Unsure;
    }
    let mut asked = JoinSet::new();
    for (name, node) in nodes {
        let sandbox = sandbox.clone();
        asked.spawn(async move { (name, node.locate(&sandbox).await) });
    }
    let mut until = Instant::now() + ANSWER_MAX;
    let mut best: Option<(String, Located)> = None;
    let mut is_sure = true;
    while !asked.is_empty() {
        match timeout_at(until, asked.join_next()).await {
            Ok(Some(Ok((name, Ok(Some(located)))))) => {
                until = until.min(Instant::now() + OTHERS_MAX);
                let is_younger =
                    |(_, best): &(String, Located)| located.started_at > best.started_at;
                if best.as_ref().is_none_or(is_younger) {
                    best = Some((name, located));
                }
            }
            Ok(Some(Ok((_, Ok(None))))) | Ok(None) => {}
            Ok(Some(Ok((name, Err(error))))) => {
                is_sure = false;
                if error != NodeError::Unreachable {
                    debug!(node = name, %error, "a node does not say whether it has {sandbox}");
                }
            }
            Ok(Some(Err(_))) => is_sure = false,
            Err(_) => {
                is_sure = false;
                break;
            }
        }
    }
    match best {
        Some((node, located)) => place(node, located).map_or(Outcome::Unsure, Outcome::Found),
        None if is_sure => Outcome::Absent,
        None => Outcome::Unsure,
    }
}

impl Searches {
    /// What an API server says to a node's word that it has a sandbox.
    async fn confirmed(&self, sandbox: &SandboxId, found: Place) -> Outcome {
        let home = match timeout(ANSWER_MAX, self.servers.home(sandbox)).await {
            Ok(Ok(Some(home))) if home == found.node => return Outcome::Found(found),
            Ok(Ok(Some(home))) => home,
            // It has ended, or is nobody's.
            Ok(Ok(None)) => return Outcome::Absent,
            // What runs is reached without them.
            Ok(Err(_)) | Err(_) => return Outcome::Found(found),
        };
        if let Some(untold) = self.contradicted.happened() {
            let node = &found.node;
            warn!(
                node, sandbox.id = %sandbox, untold,
                "node {node} says that it has sandbox {sandbox}, which is at {home}"
            );
        }
        let Some(port) = self.nodes.known(&home) else {
            return Outcome::Unsure;
        };
        match timeout(ANSWER_MAX, port.locate(sandbox)).await {
            Ok(Ok(Some(located))) => place(home, located).map_or(Outcome::Unsure, Outcome::Found),
            // On its way from one to the other.
            Ok(Ok(None) | Err(_)) | Err(_) => Outcome::Unsure,
        }
    }
}

/// `None`: the node does not know how its traffic comes in.
pub(crate) fn place(node: String, located: Located) -> Option<Place> {
    Some(Place {
        node,
        asleep: located.asleep,
        entrance: located.entrance?,
    })
}
