//! The front door wired: edge before API, the catalog as its routes, the node as its dialer.

use std::collections::HashMap;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use casemate_api::{ApiState, ScrapeToken};
use casemate_catalog::{Catalog, CatalogError, Route};
use casemate_control::Control;
use casemate_edge::{DialFailure, Dialer, Edge, EdgeConfig, LookupFailure, RouteTarget, Routes};
use casemate_rpc::{NodeError, NodePort};
use casemate_types::SandboxId;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ControlSetup;
use super::https::Https;
use crate::config::{Config, MetricsAccess};
use crate::up::doors::{Door, Doors};

/// The edge of this process.
pub struct Front {
    edge: Arc<Edge>,
    https: Option<Https>,
}

impl Front {
    /// Wires `control` behind the edge; `catalog` must be the one that control writes.
    pub fn new(
        setup: &ControlSetup,
        control: Arc<Control>,
        catalog: &CuttingCatalog,
        node: Arc<dyn NodePort>,
        https: Option<Https>,
    ) -> anyhow::Result<Self> {
        let mut state = ApiState::new(control, metrics_access(&setup.config));
        if let Some(https) = &https {
            state = state.with_certificate_end(https.certificate_end());
        }
        let mut api = casemate_api::router(state);
        if let Some(https) = &https {
            api = https.with_challenges(api);
        }
        let routes = Arc::new(CatalogRoutes {
            catalog: Arc::clone(&catalog.inner),
            filled: catalog.filled.subscribe(),
        });
        let edge = Edge::new(
            edge_config(&setup.config)?,
            routes,
            Arc::new(NodeDialer(node)),
            api,
        );
        let edge = Arc::new(edge);
        if catalog.edge.set(Arc::clone(&edge)).is_err() {
            anyhow::bail!("a catalog serves one edge");
        }
        Ok(Self { edge, https })
    }

    /// Serves until `shutdown`, and then until what is open has ended or was cut.
    pub async fn serve(&self, mut doors: Doors, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut take = |door| doors.remove(&door).map(listener).transpose();
        let http = take(Door::Http)?.context("there is no listener for http")?;
        let (tls, redirect) = (take(Door::Https)?, take(Door::Redirect)?);
        let https = async {
            if let (Some(https), Some(tls)) = (&self.https, tls) {
                https.serve(&self.edge, tls, redirect, &shutdown).await;
            }
        };
        tokio::join!(self.edge.serve(http, shutdown.clone()), https);
        Ok(())
    }

    /// See [`Edge::announce_end`].
    pub fn announce_end(&self) {
        self.edge.announce_end();
    }

    /// See [`Edge::asked`].
    pub async fn asked(&self) {
        self.edge.asked().await;
    }
}

fn listener(listener: TcpListener) -> std::io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

fn edge_config(config: &Config) -> anyhow::Result<EdgeConfig> {
    let mut edge = EdgeConfig::new(config.domain.clone());
    edge.hosts = config.edge_hosts.clone();
    edge.hosts.push(
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .to_lowercase(),
    );
    edge.limits.connections_max = config.connections_max;
    edge.limits.sandbox_requests_max = match config.sandbox_connections_max {
        None => None,
        Some(max) => Some(
            u32::try_from(max)
                .ok()
                .and_then(NonZeroU32::new)
                .context("server.sandbox_connections_max must be -1 or at least 1")?,
        ),
    };
    Ok(edge)
}

fn metrics_access(config: &Config) -> casemate_api::MetricsAccess {
    let token = &config.scrape_token;
    match config.metrics {
        MetricsAccess::Public => casemate_api::MetricsAccess::Public,
        MetricsAccess::Token => casemate_api::MetricsAccess::Guarded {
            scrape_token: (!token.is_empty()).then(|| ScrapeToken::new(token.expose().to_owned())),
            open_on_loopback: config.domain_is_default,
        },
    }
}

struct CatalogRoutes {
    catalog: Arc<dyn Catalog>,
    filled: watch::Receiver<bool>,
}

/// How long a request waits after a start until it is known what runs.
const FILLED_PATIENCE: Duration = Duration::from_secs(10);

impl CatalogRoutes {
    /// Until the node has said what runs, nobody can say that a sandbox does not.
    async fn filled(&self) -> Result<(), LookupFailure> {
        let mut filled = self.filled.clone();
        match tokio::time::timeout(FILLED_PATIENCE, filled.wait_for(|filled| *filled)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(LookupFailure("it is not known yet what runs".into())),
        }
    }
}

#[async_trait]
impl Routes for CatalogRoutes {
    async fn lookup(&self, sandbox: &SandboxId) -> Result<Option<RouteTarget>, LookupFailure> {
        let look = || async {
            let route = self.catalog.route_by_id(sandbox).await;
            route.map_err(|error| LookupFailure(Box::new(error)))
        };
        let mut route = look().await?;
        if route.is_none() && !*self.filled.borrow() {
            self.filled().await?;
            route = look().await?;
        }
        Ok(route.map(|Route { .. }| RouteTarget::Running {
            traffic_token: None,
        }))
    }
}

struct NodeDialer(Arc<dyn NodePort>);

#[async_trait]
impl Dialer for NodeDialer {
    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<TcpStream, DialFailure> {
        match self.0.dial(sandbox, port).await {
            Ok(stream) => Ok(TcpStream::from_std(stream)?),
            Err(NodeError::NotFound(_)) => Err(DialFailure::NotFound),
            Err(NodeError::PortClosed { .. }) => Err(DialFailure::PortClosed),
            Err(error) => Err(DialFailure::Node(Box::new(error))),
        }
    }
}

/// A catalog that tells the edge: of a new route, so that it dials ahead; of one that went, so that
/// it cuts the sandbox's connections, after which no request comes in between.
pub struct CuttingCatalog {
    inner: Arc<dyn Catalog>,
    edge: OnceLock<Arc<Edge>>,
    known: Mutex<HashMap<SandboxId, String>>,
    /// A node has said what runs.
    filled: watch::Sender<bool>,
}

impl CuttingCatalog {
    pub fn new(inner: Arc<dyn Catalog>) -> Self {
        Self {
            inner,
            edge: OnceLock::new(),
            known: Mutex::default(),
            filled: watch::Sender::new(false),
        }
    }

    fn cut(&self, sandbox: &SandboxId) {
        if let Some(edge) = self.edge.get() {
            edge.forget(sandbox);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<SandboxId, String>> {
        self.known.lock().expect("no holder of this lock panics")
    }
}

#[async_trait]
impl Catalog for CuttingCatalog {
    async fn route_put(&self, sandbox: &SandboxId, route: Route) -> Result<(), CatalogError> {
        let new = self
            .known()
            .insert(sandbox.clone(), route.node.clone())
            .is_none();
        self.inner.route_put(sandbox, route).await?;
        if let (true, Some(edge)) = (new, self.edge.get()) {
            edge.warm(sandbox);
        }
        Ok(())
    }

    async fn route_by_id(&self, sandbox: &SandboxId) -> Result<Option<Route>, CatalogError> {
        self.inner.route_by_id(sandbox).await
    }

    async fn route_remove(&self, sandbox: &SandboxId, node: &str) -> Result<bool, CatalogError> {
        let removed = self.inner.route_remove(sandbox, node).await?;
        if removed {
            self.known().remove(sandbox);
            self.cut(sandbox);
        }
        Ok(removed)
    }

    async fn routes_replace(
        &self,
        node: &str,
        sandboxes: &[SandboxId],
    ) -> Result<(), CatalogError> {
        self.inner.routes_replace(node, sandboxes).await?;
        self.filled.send_replace(true);
        let gone: Vec<SandboxId> = {
            let mut known = self.known();
            let mut gone = std::mem::take(&mut *known);
            for sandbox in sandboxes {
                gone.remove(sandbox);
                known.insert(sandbox.clone(), node.to_owned());
            }
            let (gone, stay): (Vec<_>, Vec<_>) = gone.into_iter().partition(|(_, n)| n == node);
            known.extend(stay);
            gone.into_iter().map(|(sandbox, _)| sandbox).collect()
        };
        for sandbox in gone {
            self.cut(&sandbox);
        }
        Ok(())
    }
}
