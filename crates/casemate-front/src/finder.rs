//! Where a sandbox is, from whoever knows it, and the way into it.
//!
//! | asked, in this order | believed |
//! |---|---|
//! | what was found out in the last seconds | until a node contradicts it |
//! | the catalog, where there is one | unless a node has just said otherwise; that it knows nothing says nothing |
//! | the node that had it last | that it is there |
//! | all nodes at once, and an API server whether it is so | while none answers, whoever has the younger run |
//!
//! Nobody tells an edge of pauses and ends. The gate of the sandbox's node cuts what is open then, a
//! node that is dialled says what it does not have, a request whose connection broke asks the node
//! before it is answered ([`Routes::broke`]), and so does one that would be refused for its token
//! ([`Routes::outdated`]). So the first request after a pause or an end finds out.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use casemate_catalog::{Catalog, Route};
use casemate_edge::{
    DialFailure, Dialer, Dialled, Edge, Knock, LookupFailure, RouteTarget, Routes, WakeFailure,
    Wire,
};
use casemate_tls::ServiceTls;
use casemate_types::{Entrance, SandboxId, chain};
use tokio::time::timeout;
use tracing::debug;

use crate::answers;
use crate::memory::{Doubt, Mark, Memory, Place, Recalled};
use crate::nodes::NodeTable;
use crate::search::{Allowance, Outcome, Searches, place};
use crate::servers::Servers;

/// Sandboxes that are remembered. Some 200 bytes each.
const REMEMBERED_MAX: usize = 100_000;
/// How long one node has for a look at its table.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// See the module.
pub struct Finder {
    catalog: Option<Arc<dyn Catalog>>,
    nodes: Arc<NodeTable>,
    servers: Arc<dyn Servers>,
    memory: Memory,
    searches: Arc<Searches>,
    services: ServiceTls,
    edge: OnceLock<Edge>,
    counters: Counters,
    /// Questions on account of requests that are about to be refused.
    refused: Mutex<Allowance>,
}

#[derive(Default)]
struct Counters {
    remembered: AtomicU64,
    catalog: AtomicU64,
    catalog_away: AtomicU64,
}

/// What a finder did so far, and knows now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Look-ups that needed nobody.
    pub remembered: u64,
    /// Look-ups that the catalog answered.
    pub catalog: u64,
    /// Look-ups that it could not be asked for.
    pub catalog_away: u64,
    /// Times that all nodes were asked.
    pub searches: u64,
    /// Times that they were not, because there were too many.
    pub searches_refused: u64,
    /// Sandboxes of which something is remembered.
    pub known: usize,
}

/// What the catalog says.
enum Said {
    Place(Place),
    /// It has no route. One that was emptied says that, too.
    Nothing,
    /// There is none, or it is away, or does not say enough.
    Unknown,
}

impl Finder {
    pub fn new(
        catalog: Option<Arc<dyn Catalog>>,
        nodes: Arc<NodeTable>,
        servers: Arc<dyn Servers>,
    ) -> Self {
        Self {
            catalog,
            searches: Arc::new(Searches::new(Arc::clone(&nodes), Arc::clone(&servers))),
            nodes,
            servers,
            memory: Memory::new(REMEMBERED_MAX),
            services: ServiceTls::default(),
            edge: OnceLock::new(),
            counters: Counters::default(),
            refused: Mutex::default(),
        }
    }

    /// Of what is found gone or paused, this edge cuts the connections. Once.
    pub fn tell(&self, edge: Edge) {
        // A second one would be the first's clone.
        let _ = self.edge.set(edge);
    }

    pub fn figures(&self) -> Figures {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (searches, searches_refused) = self.searches.counts();
        Figures {
            remembered: count(&self.counters.remembered),
            catalog: count(&self.counters.catalog),
            catalog_away: count(&self.counters.catalog_away),
            searches,
            searches_refused,
            known: self.memory.len(),
        }
    }

    async fn find(&self, sandbox: &SandboxId) -> Result<(Option<Place>, Mark), LookupFailure> {
        let (recalled, mark) = self.memory.recall(sandbox);
        let (doubt, last) = match recalled {
            Recalled::Place(place) => {
                add(&self.counters.remembered);
                return Ok((Some(place), mark));
            }
            Recalled::Absent => {
                add(&self.counters.remembered);
                return Ok((None, mark));
            }
            Recalled::Unsure { doubt, last } => (doubt, last),
        };
        let is_doubted =
            |place: &Place| doubt.as_ref().is_some_and(|doubt| doubt.contradicts(place));
        let note = |place: Option<Place>| {
            let mark = self.memory.note(sandbox, place.as_ref(), mark);
            Ok((place, mark))
        };
        let said = self.said_by_catalog(sandbox).await;
        if let Said::Place(place) = &said
            && !is_doubted(place)
        {
            add(&self.counters.catalog);
            return note(Some(place.clone()));
        }
        if let Some(last) = &last
            && let Some(place) = self.at(last, sandbox).await
            // One that was woken may run elsewhere now.
            && !(place.asleep && doubt == Some(Doubt::Asleep))
        {
            return note(Some(place));
        }
        let had_it = doubt.is_none() && last.is_some_and(|node| self.nodes.known(&node).is_some());
        match (self.searches.search(sandbox).await, said) {
            (Outcome::Found(place), _) => note(Some(place)),
            (Outcome::Absent, _) => note(None),
            // A node that is away need not have what the catalog knows nothing of: unless it had it
            // when it was last heard of. A catalog that lost everything says the same.
            (Outcome::Unsure, Said::Nothing) if !had_it => note(None),
            (Outcome::Unsure, _) => Err(LookupFailure::Failed(
                "not every node says whether it has it".into(),
            )),
            (Outcome::Busy, _) => Err(LookupFailure::Busy),
        }
    }

    async fn said_by_catalog(&self, sandbox: &SandboxId) -> Said {
        let Some(catalog) = &self.catalog else {
            return Said::Unknown;
        };
        match catalog.route_by_id(sandbox).await {
            Ok(Some(route)) if route.ingress.is_private() && route.traffic_token.is_none() => {
                Said::Unknown
            }
            Ok(Some(route)) => Said::Place(as_place(route)),
            Ok(None) => Said::Nothing,
            Err(error) => {
                add(&self.counters.catalog_away);
                debug!(
                    error = chain(&error),
                    "the catalog does not say where {sandbox} is"
                );
                Said::Unknown
            }
        }
    }

    /// Whether it is at a node. `None` also where that does not answer.
    async fn at(&self, node: &str, sandbox: &SandboxId) -> Option<Place> {
        let port = self.nodes.known(node)?;
        let located = timeout(ANSWER_MAX, port.locate(sandbox)).await;
        place(node.to_owned(), located.ok()?.ok()??)
    }

    /// Asks the node that has a sandbox, as far as is known here, and finds out whether that run of it
    /// is over; then what is known is doubted, and what is open into it cut.
    async fn is_over(&self, sandbox: &SandboxId) -> bool {
        let (recalled, mark) = self.memory.recall(sandbox);
        let node = match recalled {
            Recalled::Place(place) => Some(place.node),
            Recalled::Unsure { last, .. } => last,
            Recalled::Absent => None,
        };
        let Some(node) = node else { return false };
        let Some(port) = self.nodes.known(&node) else {
            return false;
        };
        match timeout(ANSWER_MAX, port.locate(sandbox)).await {
            Ok(Ok(Some(located))) if !located.asleep => false,
            Ok(Ok(_)) => {
                // Only the first who finds out cuts the others: it may run again since.
                let doubt = Doubt::RunsAt(node);
                if self.memory.doubt_since(sandbox, doubt, mark) {
                    self.forget(sandbox);
                }
                true
            }
            Ok(Err(_)) | Err(_) => {
                self.memory.age(sandbox);
                false
            }
        }
    }

    /// Cuts what is open into it: that was another run.
    fn forget(&self, sandbox: &SandboxId) {
        if let Some(edge) = self.edge.get() {
            edge.forget(sandbox);
        }
    }

    async fn dial_at(
        &self,
        (place, mark): (&Place, Mark),
        sandbox: &SandboxId,
        port: u16,
    ) -> Result<Dialled, DialFailure> {
        let Some(node) = self.nodes.port(&place.node).await else {
            let why = format!("there is no node {}", place.node);
            return Err(DialFailure::Node(why.into()));
        };
        let dialled = answers::dialled(node.dial(sandbox, port).await);
        match &dialled {
            Err(DialFailure::NotFound | DialFailure::Paused) => {
                // What is open into it the gate cuts; others that dial now find out as this did.
                let doubt = Doubt::RunsAt(place.node.clone());
                self.memory.doubt_since(sandbox, doubt, mark);
            }
            // It may be elsewhere by now, or the node at another address.
            Err(DialFailure::Node(_)) => {
                self.memory.age(sandbox);
                self.nodes.ask();
            }
            Ok(_) | Err(DialFailure::PortClosed) => {}
        }
        dialled
    }

    async fn dial_found(&self, sandbox: &SandboxId, port: u16) -> Result<Dialled, DialFailure> {
        // Once more, past what is known, where the node that has it says that it does not.
        for is_last in [false, true] {
            let found = self.find(sandbox).await;
            let (place, mark) = found.map_err(|failure| DialFailure::Node(Box::new(failure)))?;
            let place = match place {
                None => return Err(DialFailure::NotFound),
                Some(place) if place.asleep => return Err(DialFailure::Paused),
                Some(place) => place,
            };
            match self.dial_at((&place, mark), sandbox, port).await {
                Err(DialFailure::NotFound) if !is_last => {}
                done => return done,
            }
        }
        Err(DialFailure::NotFound)
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn as_place(route: Route) -> Place {
    Place {
        node: route.node,
        asleep: route.asleep,
        entrance: Entrance {
            ingress: route.ingress,
            traffic_token: route.traffic_token,
        },
    }
}

#[async_trait]
impl Routes for Finder {
    async fn lookup(&self, sandbox: &SandboxId) -> Result<Option<RouteTarget>, LookupFailure> {
        let (Some(place), _) = self.find(sandbox).await? else {
            return Ok(None);
        };
        if place.asleep {
            return Ok(Some(RouteTarget::Asleep));
        }
        match answers::running(place.entrance) {
            Some(target) => Ok(Some(target)),
            None => Err(LookupFailure::Failed(
                "it is private, and nobody says with which token".into(),
            )),
        }
    }

    async fn wake(&self, sandbox: &SandboxId, knock: Knock) -> Result<(), WakeFailure> {
        let woken = self.servers.wake(sandbox, answers::knock(&knock)).await;
        woken.map_err(answers::not_woken)?;
        // Who still says that it is asleep has not heard of it yet.
        self.memory.doubt(sandbox, Doubt::Asleep);
        Ok(())
    }

    fn knows_of_dials(&self) -> bool {
        true
    }

    async fn broke(&self, sandbox: &SandboxId) {
        self.is_over(sandbox).await;
    }

    async fn outdated(&self, sandbox: &SandboxId) -> bool {
        let is_allowed = {
            let mut allowance = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            allowance.take()
        };
        is_allowed && self.is_over(sandbox).await
    }
}

#[async_trait]
impl Dialer for Finder {
    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<Dialled, DialFailure> {
        self.dial_found(sandbox, port).await
    }

    async fn speak_tls(&self, stream: Box<dyn Wire>, host: &str) -> io::Result<Box<dyn Wire>> {
        Ok(Box::new(self.services.connect(stream, host).await?))
    }
}
