//! A small cluster: nodes, a catalog that may be behind or away, and one API server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use casemate_catalog::{Catalog, CatalogError, MemoryCatalog, Route};
use casemate_front::{Finder, NodeTable, Servers};
use casemate_rpc::control::{ControlError, Knock, NodeAddress};
use casemate_rpc::{
    ClaimRequest, CreateReply, CreateRequest, Dialled, KeptSnapshot, Located, NodeError, NodeEvent,
    NodeInfo, NodePort, PauseReply, PausedSandbox, ResumeReply, ResumeRequest, SealReply,
    SnapshotReply,
};
use casemate_types::{
    CompiledPolicy, EndReason, Entrance, Ingress, Kept, LayerId, PauseReason, SandboxId,
    SnapshotId, Timestamp,
};
use tokio::sync::mpsc;

/// What a node has.
#[derive(Debug, Clone)]
pub struct Has {
    pub asleep: bool,
    pub started_at: Timestamp,
    pub entrance: Option<Entrance>,
}

impl Has {
    pub fn running() -> Self {
        Self {
            asleep: false,
            started_at: Timestamp::UNIX_EPOCH,
            entrance: Some(Entrance::default()),
        }
    }

    pub fn asleep() -> Self {
        Self {
            asleep: true,
            ..Self::running()
        }
    }
}

/// A node that knows what a test tells it, and answers only what edges ask.
#[derive(Default)]
pub struct FakeNode {
    pub sandboxes: Mutex<BTreeMap<SandboxId, Has>>,
    pub is_away: AtomicBool,
    pub hangs: AtomicBool,
    pub asked: AtomicUsize,
    pub dialled: AtomicUsize,
    observers: Mutex<Vec<mpsc::Sender<NodeEvent>>>,
    /// What listens in its sandboxes, whichever port is dialled.
    pub service: Mutex<Option<std::net::SocketAddr>>,
}

impl FakeNode {
    pub fn put(&self, sandbox: &SandboxId, has: Has) {
        self.sandboxes.lock().unwrap().insert(sandbox.clone(), has);
    }

    pub fn lose(&self, sandbox: &SandboxId) {
        self.sandboxes.lock().unwrap().remove(sandbox);
    }

    /// It stands still from now on, and whoever observes hears of it.
    pub async fn pause(&self, sandbox: &SandboxId) {
        self.put(sandbox, Has::asleep());
        let paused = NodeEvent::Paused(PausedSandbox {
            sandbox: sandbox.clone(),
            team: "0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162".parse().unwrap(),
            template: "base".parse().unwrap(),
            started_at: Timestamp::UNIX_EPOCH,
            at: Timestamp::UNIX_EPOCH,
            kept: Kept::Memory,
            reason: PauseReason::Asked,
            recorded: true,
            creator: String::new(),
        });
        self.tell(paused).await;
    }

    pub async fn end(&self, sandbox: &SandboxId) {
        self.lose(sandbox);
        let (sandbox, at) = (sandbox.clone(), Timestamp::UNIX_EPOCH);
        let reason = EndReason::Killed;
        self.tell(NodeEvent::Ended {
            sandbox,
            reason,
            at,
        })
        .await;
    }

    async fn tell(&self, event: NodeEvent) {
        let observers = self.observers.lock().unwrap().clone();
        for observer in observers {
            observer.send(event.clone()).await.unwrap();
        }
    }

    pub fn is_observed(&self) -> bool {
        !self.observers.lock().unwrap().is_empty()
    }

    fn get(&self, sandbox: &SandboxId) -> Option<Has> {
        self.sandboxes.lock().unwrap().get(sandbox).cloned()
    }

    async fn answers(&self) -> Result<(), NodeError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(NodeError::Unreachable);
        }
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

fn no<T>() -> Result<T, NodeError> {
    Err(NodeError::Denied)
}

#[async_trait]
impl NodePort for FakeNode {
    async fn locate(&self, sandbox: &SandboxId) -> Result<Option<Located>, NodeError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.answers().await?;
        Ok(self.get(sandbox).map(|has| Located {
            asleep: has.asleep,
            started_at: has.started_at,
            entrance: has.entrance,
        }))
    }

    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<Dialled, NodeError> {
        self.dialled.fetch_add(1, Ordering::SeqCst);
        self.answers().await?;
        match self.get(sandbox) {
            None => Err(NodeError::NotFound(sandbox.clone())),
            Some(has) if has.asleep => Err(NodeError::Paused(sandbox.clone())),
            Some(_) => {
                let sandbox = sandbox.clone();
                let closed = NodeError::PortClosed { sandbox, port };
                let service = *self.service.lock().unwrap();
                let socket = std::net::TcpStream::connect(service.ok_or(closed)?).unwrap();
                Ok(Dialled::Near(socket))
            }
        }
    }

    async fn create(&self, _: CreateRequest) -> Result<CreateReply, NodeError> {
        no()
    }
    async fn claim(&self, _: &SandboxId, _: ClaimRequest) -> Result<CreateReply, NodeError> {
        no()
    }
    async fn recorded(&self, _: &[SandboxId]) -> Result<(), NodeError> {
        no()
    }
    async fn kill(&self, _: &SandboxId, _: EndReason) -> Result<(), NodeError> {
        no()
    }
    async fn pause(&self, _: &SandboxId, _: Kept) -> Result<PauseReply, NodeError> {
        no()
    }
    async fn resume(&self, _: ResumeRequest) -> Result<ResumeReply, NodeError> {
        no()
    }
    async fn snapshot(&self, _: &SandboxId, _: &SnapshotId) -> Result<SnapshotReply, NodeError> {
        no()
    }
    async fn remove_snapshot(&self, _: &SnapshotId) -> Result<(), NodeError> {
        no()
    }
    async fn snapshots(&self, _: Option<&SnapshotId>) -> Result<Vec<KeptSnapshot>, NodeError> {
        no()
    }
    async fn seal(&self, _: &SnapshotId, _: &LayerId) -> Result<SealReply, NodeError> {
        no()
    }
    async fn remove_layer(&self, _: &LayerId) -> Result<(), NodeError> {
        no()
    }
    async fn layers(&self, _: Option<&LayerId>) -> Result<Vec<LayerId>, NodeError> {
        no()
    }
    async fn missing(
        &self,
        _: &[String],
        _: Option<&SnapshotId>,
    ) -> Result<Vec<String>, NodeError> {
        no()
    }
    async fn memory_kills(&self, _: &SandboxId) -> Result<u64, NodeError> {
        no()
    }
    async fn set_deadline(&self, _: &SandboxId, _: Timestamp) -> Result<(), NodeError> {
        no()
    }
    async fn set_network(&self, _: &SandboxId, _: CompiledPolicy) -> Result<(), NodeError> {
        no()
    }
    async fn info(&self) -> Result<NodeInfo, NodeError> {
        no()
    }
    async fn watch(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        no()
    }
    async fn observe(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        let (sender, receiver) = mpsc::channel(64);
        self.observers.lock().unwrap().push(sender);
        Ok(receiver)
    }
}

/// A catalog that can be away, and is told what tests say.
pub struct FakeCatalog {
    inner: MemoryCatalog,
    pub is_away: AtomicBool,
    pub asked: AtomicUsize,
}

impl Default for FakeCatalog {
    fn default() -> Self {
        Self {
            inner: MemoryCatalog::new(),
            is_away: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl Catalog for FakeCatalog {
    async fn route_put(&self, sandbox: &SandboxId, route: Route) -> Result<bool, CatalogError> {
        self.inner.route_put(sandbox, route).await
    }

    async fn route_by_id(&self, sandbox: &SandboxId) -> Result<Option<Route>, CatalogError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.is_away.load(Ordering::SeqCst) {
            true => Err(CatalogError::Unavailable("away".into())),
            false => self.inner.route_by_id(sandbox).await,
        }
    }

    async fn route_remove(
        &self,
        sandbox: &SandboxId,
        node: &str,
        generation: u64,
    ) -> Result<bool, CatalogError> {
        self.inner.route_remove(sandbox, node, generation).await
    }

    async fn routes_replace(
        &self,
        node: &str,
        routes: &[(SandboxId, Route)],
        unsure: &[SandboxId],
    ) -> Result<(), CatalogError> {
        self.inner.routes_replace(node, routes, unsure).await
    }
}

/// The API servers, or none.
#[derive(Default)]
pub struct FakeServers {
    pub nodes: Mutex<Option<Vec<NodeAddress>>>,
    pub wakes: AtomicUsize,
    /// What the next wake comes to; otherwise it is done by `on_wake`.
    pub refusal: Mutex<Option<ControlError>>,
    pub on_wake: Mutex<Option<Wake>>,
    /// What rows say; `None`: nobody can be asked.
    pub homes: Mutex<Option<BTreeMap<SandboxId, String>>>,
}

type Wake = Box<dyn Fn(&SandboxId) + Send>;

#[async_trait]
impl Servers for FakeServers {
    async fn nodes(&self) -> Result<Vec<NodeAddress>, ControlError> {
        let nodes = self.nodes.lock().unwrap().clone();
        nodes.ok_or(ControlError::Unreachable)
    }

    async fn wake(&self, sandbox: &SandboxId, _: Knock) -> Result<(), ControlError> {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        if let Some(refusal) = self.refusal.lock().unwrap().take() {
            return Err(refusal);
        }
        if let Some(wake) = &*self.on_wake.lock().unwrap() {
            wake(sandbox);
        }
        Ok(())
    }

    async fn home(&self, sandbox: &SandboxId) -> Result<Option<String>, ControlError> {
        let homes = self.homes.lock().unwrap();
        let homes = homes.as_ref().ok_or(ControlError::Unreachable)?;
        Ok(homes.get(sandbox).cloned())
    }
}

pub fn address(node: &str) -> NodeAddress {
    NodeAddress {
        node: node.to_owned(),
        address: format!("{node}:8082"),
    }
}

/// Nodes `a` and `b`.
pub struct World {
    pub a: Arc<FakeNode>,
    pub b: Arc<FakeNode>,
    pub catalog: Arc<FakeCatalog>,
    pub servers: Arc<FakeServers>,
    pub finder: Arc<Finder>,
}

pub fn world() -> World {
    with_catalog(true)
}

pub fn with_catalog(has_catalog: bool) -> World {
    let (a, b) = (Arc::<FakeNode>::default(), Arc::<FakeNode>::default());
    let ports = [("a", Arc::clone(&a)), ("b", Arc::clone(&b))];
    let table = NodeTable::new(move |one: &NodeAddress| {
        let (_, port) = ports.iter().find(|(name, _)| *name == one.node).unwrap();
        Arc::clone(port) as Arc<dyn NodePort>
    });
    table.set(&[address("a"), address("b")]);
    let table = Arc::new(table);
    let catalog = Arc::<FakeCatalog>::default();
    let servers = Arc::<FakeServers>::default();
    let asked = has_catalog.then(|| Arc::clone(&catalog) as Arc<dyn Catalog>);
    let told: Arc<dyn Servers> = Arc::clone(&servers) as _;
    let finder = Arc::new(Finder::new(asked, Arc::clone(&table), told));
    World {
        a,
        b,
        catalog,
        servers,
        finder,
    }
}

impl World {
    pub async fn route(&self, sandbox: &SandboxId, node: &str, asleep: bool, generation: u64) {
        let route = Route {
            node: node.to_owned(),
            asleep,
            ingress: Ingress::default(),
            generation,
            traffic_token: None,
        };
        self.catalog.route_put(sandbox, route).await.unwrap();
    }

    /// Calls that nodes had: for where a sandbox is, and dials.
    pub fn asked(&self) -> (usize, usize) {
        let sum = |count: fn(&FakeNode) -> &AtomicUsize| {
            [&self.a, &self.b]
                .map(|node| count(node).load(Ordering::SeqCst))
                .iter()
                .sum()
        };
        (sum(|node| &node.asked), sum(|node| &node.dialled))
    }
}

/// Longer than anything here may take.
pub const LONG: Duration = Duration::from_secs(20);
