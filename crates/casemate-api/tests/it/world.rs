//! A control plane with a client that speaks to its router.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use casemate_api::{ApiState, MetricsAccess, ScrapeToken, router};
use casemate_catalog::MemoryCatalog;
use casemate_control::testing::FakeNode;
use casemate_control::{AdminToken, Bootstrap, Control, ControlConfig, RootSecret};
use casemate_history::testing::TempHistory;
use casemate_images::{Images, ImagesConfig};
use casemate_store::testing::{FaultyStore, TempStore};
use casemate_store::{LimitOverrides, Standing, Store, Team, Teams};
use casemate_types::peer::{OverTls, PeerAddr};
use casemate_types::{SandboxId, TeamId, Timestamp};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

pub const API_KEY: &str = "e2b_00112233445566778899aabbccddeeff00112233";
pub const ACCESS_TOKEN: &str = "sk_e2b_00112233445566778899aabbccddeeff00112233";
pub const ADMIN: &str = "the-admin-token";
pub const SCRAPE: &str = "the-scrape-token";
/// Of everything that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    pub store: TempStore,
    pub history: TempHistory,
    pub catalog: Arc<MemoryCatalog>,
    pub node: FakeNode,
    pub control: Arc<Control>,
    pub team: TeamId,
    pub router: Router,
    pub uploads: TempDir,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

pub struct Call {
    router: Router,
    request: axum::http::request::Builder,
    body: Body,
    peer: SocketAddr,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ControlConfig)) -> Self {
        let world = Self::without_node(change, FakeNode::new()).await;
        world.ready().await;
        world
    }

    /// Does not wait for the node.
    pub async fn without_node(change: impl FnOnce(&mut ControlConfig), node: FakeNode) -> Self {
        let store = TempStore::open().await;
        let shared = store.share();
        Self::over((store, shared), change, node).await
    }

    /// Its store fails where a test wants it to.
    pub async fn with_faults() -> (Self, Arc<FaultyStore>) {
        let store = TempStore::open().await;
        let faulty = Arc::new(FaultyStore::over(store.share()));
        let shared = Arc::clone(&faulty) as _;
        let world = Self::over((store, shared), |_| {}, FakeNode::new()).await;
        world.ready().await;
        (world, faulty)
    }

    async fn over(
        (store, shared): (TempStore, Arc<dyn Store>),
        change: impl FnOnce(&mut ControlConfig),
        node: FakeNode,
    ) -> Self {
        node.start_clock();
        let history = TempHistory::open().await;
        let catalog = Arc::new(MemoryCatalog::new());
        let uploads = tempfile::tempdir().unwrap();
        let ports = (shared, &history, &catalog, &node);
        let control = start(change, ports, uploads.path()).await;
        let first = first();
        let made = control.bootstrap(&first).await.unwrap();
        assert_eq!(control.bootstrap(&first).await.unwrap(), made);
        let router = router(ApiState::new(Arc::clone(&control), guarded(false)));
        Self {
            store,
            history,
            catalog,
            node,
            control,
            team: made.team,
            router,
            uploads,
        }
    }

    /// The process dies and another one starts over the same store and node.
    pub async fn restart(&mut self) {
        self.restart_with(|_| {}).await;
    }

    pub async fn restart_with(&mut self, change: impl FnOnce(&mut ControlConfig)) {
        self.control.shutdown().await;
        let ports = (
            self.store.share() as _,
            &self.history,
            &self.catalog,
            &self.node,
        );
        self.control = start(change, ports, self.uploads.path()).await;
        self.router = router(ApiState::new(Arc::clone(&self.control), guarded(false)));
        self.ready().await;
    }

    pub async fn ready(&self) {
        until("ready", || async {
            self.call("GET", "/ready").send().await.status == 200
        })
        .await;
    }

    pub fn call(&self, method: &str, path: &str) -> Call {
        Call::new(self.router.clone(), method, path)
    }

    /// With the first team's key.
    pub fn api(&self, method: &str, path: &str) -> Call {
        self.call(method, path).header("x-api-key", API_KEY)
    }

    pub fn admin(&self, method: &str, path: &str) -> Call {
        self.call(method, path).header("x-admin-token", ADMIN)
    }

    /// A sandbox of the first team with these further fields of the body.
    pub async fn create(&self, more: &str) -> SandboxId {
        let answer = self.try_create(more).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        SandboxId::parse(answer.json()["sandboxID"].as_str().unwrap()).unwrap()
    }

    pub async fn try_create(&self, more: &str) -> Answer {
        let body = format!(r#"{{"templateID":"base"{more}}}"#);
        self.api("POST", "/v2/sandboxes").json(&body).send().await
    }

    /// Another team, and a key of it.
    pub async fn other_team(&self, standing: Standing) -> (TeamId, String) {
        let id = TeamId::parse("0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162").unwrap();
        let mut team = Team {
            id: id.clone(),
            slug: "other".into(),
            name: "Other".into(),
            standing: Standing::Good,
            limits: LimitOverrides::default(),
            created_at: Timestamp::now(),
        };
        self.store.team_insert(&team).await.unwrap();
        let path = format!("/admin/teams/{id}/api-keys");
        let key = self.admin("POST", &path).json(r#"{"name":"k"}"#).send();
        let key = key.await.json()["key"].as_str().unwrap().to_owned();
        team.standing = standing;
        assert!(self.store.team_update(&team).await.unwrap());
        (id, key)
    }

    pub async fn status_of(&self, sandbox: &SandboxId) -> StatusCode {
        let path = format!("/sandboxes/{sandbox}");
        self.api("GET", &path).send().await.status
    }

    pub async fn listed(&self) -> Vec<String> {
        let rows = self.api("GET", "/v2/sandboxes").send().await.json();
        let id = |row: &Value| row["sandboxID"].as_str().unwrap().to_owned();
        rows.as_array().unwrap().iter().map(id).collect()
    }
}

/// The team and the keys that there are.
pub fn first() -> Bootstrap {
    Bootstrap {
        team_slug: "first".into(),
        team_name: "First".into(),
        api_key: API_KEY.into(),
        access_token: ACCESS_TOKEN.into(),
    }
}

pub async fn start(
    change: impl FnOnce(&mut ControlConfig),
    (store, history, catalog, node): (Arc<dyn Store>, &TempHistory, &Arc<MemoryCatalog>, &FakeNode),
    uploads: &Path,
) -> Arc<Control> {
    let root = RootSecret::new(vec![7; 32]).unwrap();
    let mut config = ControlConfig::new(root, "localhost:8080", uploads);
    config.admin_token = Some(AdminToken::new(ADMIN.into()));
    // Builds are begun and never get a turn: nothing here runs them.
    config.builds.at_once = 0;
    change(&mut config);
    // No image is ever asked for here.
    let images = ImagesConfig::new(uploads.join("images"), 1 << 20);
    let images = Arc::new(Images::open(images).unwrap());
    let control = Control::start(config, store, catalog.clone(), history.share(), images)
        .await
        .unwrap();
    control.add_node(&node.name(), Arc::new(node.clone()));
    control
}

pub fn guarded(open_on_loopback: bool) -> MetricsAccess {
    MetricsAccess::Guarded {
        scrape_token: Some(ScrapeToken::new(SCRAPE.into())),
        open_on_loopback,
    }
}

impl Call {
    pub fn new(router: Router, method: &str, path: &str) -> Self {
        Self {
            router,
            request: Request::builder().method(method).uri(path),
            body: Body::empty(),
            peer: "192.0.2.1:4711".parse().unwrap(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn json(mut self, body: &str) -> Self {
        self.body = Body::from(body.to_owned());
        self
    }

    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub fn from(mut self, peer: &str) -> Self {
        self.peer = peer.parse().unwrap();
        self
    }

    /// The edge says that it came so.
    pub fn over_tls(mut self) -> Self {
        self.request = self.request.extension(OverTls);
        self
    }

    pub async fn send(self) -> Answer {
        let mut request = self.request.body(self.body).unwrap();
        request.extensions_mut().insert(PeerAddr(self.peer));
        let response = self.router.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {:?}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// An error body of this status; its message.
    #[track_caller]
    pub fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        let body = self.json();
        assert_eq!(body["code"], status, "{}", self.text);
        body["message"].as_str().expect("a message").to_owned()
    }

    #[track_caller]
    pub fn error_code(&self, status: u16, code: &str) {
        self.error(status);
        assert_eq!(self.json()["error_code"], code, "{}", self.text);
    }
}

/// Waits for a condition, with a deadline.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
