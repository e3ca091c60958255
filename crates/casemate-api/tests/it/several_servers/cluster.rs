//! Two servers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use casemate_api::{ApiState, router};
use casemate_catalog::{Catalog, MemoryCatalog};
use casemate_control::members::{Members, follow};
use casemate_control::nodes::NodeLink;
use casemate_control::testing::FakeNode;
use casemate_control::{Control, ControlConfig, RootSecret, ServerTimes, Shared, Sharing};
use casemate_history::testing::TempHistory;
use casemate_store::testing::TempStore;
use casemate_store::{LeaseTaken, Node, NodeJoin, Store};
use casemate_types::{SandboxId, SandboxState, TeamId};
use tempfile::TempDir;

use crate::world::{ADMIN, API_KEY, Answer, Call, first, guarded, start, until};

pub struct Cluster {
    pub store: Arc<dyn Store>,
    pub catalog: Arc<MemoryCatalog>,
    pub node: FakeNode,
    pub controls: [Arc<Control>; 2],
    pub team: TeamId,
    routers: [Router; 2],
    _kept: (TempDir, TempHistory),
    pub file: Option<TempStore>,
}

/// Quick, and not so that a slow machine makes anybody dead.
pub const TIMES: ServerTimes = ServerTimes {
    beat_every: Duration::from_millis(100),
    dead_after: Duration::from_secs(2),
    lease_lasts: Duration::from_secs(2),
    lease_every: Duration::from_millis(200),
    lost_after: None,
};

impl Cluster {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl Fn(&mut ControlConfig)) -> Self {
        let file = TempStore::open().await;
        let stores = [file.share() as _, file.share() as _];
        let cluster = Self::over(stores, change).await;
        Self {
            file: Some(file),
            ..cluster
        }
    }

    pub async fn over(stores: [Arc<dyn Store>; 2], change: impl Fn(&mut ControlConfig)) -> Self {
        let node = FakeNode::new();
        node.start_clock();
        let history = TempHistory::open().await;
        let catalog = Arc::new(MemoryCatalog::new());
        let uploads = tempfile::tempdir().unwrap();
        let with_others = |config: &mut ControlConfig| {
            config.row_grace = Duration::from_millis(100);
            config.servers = Sharing::Several(Shared {
                address: None,
                version: "1".into(),
                leases: Some(Arc::clone(&catalog) as _),
                events: Some(Arc::clone(&catalog) as _),
                times: TIMES,
            });
            change(config);
        };
        let [one, two] = stores;
        let store = Arc::clone(&one);
        let ports = (one, &history, &catalog, &node);
        let one = start(with_others, ports, uploads.path()).await;
        let ports = (two, &history, &catalog, &node);
        let two = start(with_others, ports, uploads.path()).await;
        let made = one.bootstrap(&first()).await.unwrap();
        let controls = [one, two];
        let routers = controls
            .each_ref()
            .map(|control| router(ApiState::new(Arc::clone(control), guarded(false))));
        let cluster = Self {
            store,
            catalog,
            node,
            controls,
            team: made.team,
            routers,
            _kept: (uploads, history),
            file: None,
        };
        for server in 0..2 {
            until("ready", || async {
                cluster.call(server, "GET", "/ready").send().await.status == 200
            })
            .await;
        }
        until("one keeps the node", || cluster.is_kept(&cluster.node)).await;
        cluster
    }

    /// Its node and these join, as far as both servers know.
    pub async fn join(&mut self, others: &[FakeNode]) {
        let link = |node: &FakeNode| NodeLink::from(Arc::new(node.clone()));
        self.join_by(others, link).await;
    }

    /// The same, spoken with in this way.
    pub async fn join_by(
        &mut self,
        others: &[FakeNode],
        link: impl Fn(&FakeNode) -> NodeLink + Clone + Send + 'static,
    ) {
        let secret = RootSecret::new(vec![7; 32]).unwrap();
        let members = Members::open(Arc::clone(&self.store), &secret);
        let members = Arc::new(members.await.unwrap());
        let nodes = others.iter().chain([&self.node]).cloned();
        let nodes: Vec<FakeNode> = nodes.collect();
        for node in &nodes {
            node.start_clock();
            let join = NodeJoin {
                id: node.name(),
                address: format!("{}:8082", node.name()),
                labels: BTreeMap::new(),
                isolation: "namespaces".into(),
            };
            self.store.node_join(&join).await.unwrap();
        }
        for (control, router) in self.controls.iter().zip(&mut self.routers) {
            let state = ApiState::new(Arc::clone(control), guarded(false));
            *router = casemate_api::router(state.with_members(Arc::clone(&members)));
            let (nodes, link) = (nodes.clone(), link.clone());
            let connect = move |joined: &Node| {
                let node = nodes.iter().find(|node| node.name() == joined.id);
                link(node.unwrap())
            };
            tokio::spawn(follow(Arc::clone(control), Arc::clone(&members), connect));
        }
        for node in &nodes {
            until("one keeps it", || self.is_kept(node)).await;
        }
        for server in 0..2 {
            until("all are connected", || async {
                let listed = self.admin(server, "GET", "/admin/cluster/nodes").send();
                let listed = listed.await.json();
                let mut listed = listed.as_array().unwrap().iter();
                listed.all(|node| node["connected"] == true)
            })
            .await;
        }
    }

    /// Whether some server watches it for both.
    pub async fn is_kept(&self, node: &FakeNode) -> bool {
        let name = format!("node/{}", node.name());
        let leases = self.store.lease_list(&name).await.unwrap();
        leases.iter().any(|lease| lease.free_for.is_none())
    }

    pub fn call(&self, server: usize, method: &str, path: &str) -> Call {
        Call::new(self.routers[server].clone(), method, path)
    }

    pub fn api(&self, server: usize, method: &str, path: &str) -> Call {
        self.call(server, method, path).header("x-api-key", API_KEY)
    }

    pub fn admin(&self, server: usize, method: &str, path: &str) -> Call {
        self.call(server, method, path)
            .header("x-admin-token", ADMIN)
    }

    pub fn try_create(&self, server: usize) -> impl Future<Output = Answer> + Send + 'static {
        let call = self.api(server, "POST", "/v2/sandboxes");
        call.json(r#"{"templateID":"base","timeout":300}"#).send()
    }

    pub async fn create(&self, server: usize) -> SandboxId {
        let answer = self.try_create(server).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        id_of(&answer)
    }

    pub async fn state_of(&self, sandbox: &SandboxId) -> Option<SandboxState> {
        let row = self.store.sandbox_by_id(sandbox).await.unwrap();
        row.map(|row| row.state)
    }

    /// Row, node and route say so, and both servers.
    pub async fn is_dead_everywhere(&self, sandbox: &SandboxId) {
        let state = self.state_of(sandbox).await;
        assert!(
            matches!(state, Some(SandboxState::Dead { .. })),
            "{state:?}"
        );
        assert!(!self.node.running().contains(sandbox));
        assert_eq!(self.catalog.route_by_id(sandbox).await.unwrap(), None);
        for server in 0..2 {
            let path = format!("/sandboxes/{sandbox}");
            let shown = self.api(server, "GET", &path).send().await;
            assert_eq!(shown.status, 404, "{}", shown.text);
        }
    }

    /// Which server watches the node for both.
    pub async fn keeper(&self) -> usize {
        self.keeper_of(&self.node).await
    }

    pub async fn keeper_of(&self, node: &FakeNode) -> usize {
        let name = format!("node/{}", node.name());
        let asked = self
            .store
            .lease_take(&name, "a test", Duration::from_millis(1));
        match asked.await.unwrap() {
            LeaseTaken::HeldBy { holder, .. } => {
                let mut controls = self.controls.iter();
                controls.position(|one| one.server() == holder).unwrap()
            }
            LeaseTaken::Held { .. } => panic!("nobody has the node"),
        }
    }
}

pub fn id_of(answer: &Answer) -> SandboxId {
    SandboxId::parse(answer.json()["sandboxID"].as_str().unwrap()).unwrap()
}
