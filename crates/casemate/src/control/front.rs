//! The front door wired: edge before API, the catalog as its routes, the node as its dialer.

use std::collections::HashMap;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use casemate_api::{ApiState, RateLimits, ScrapeToken};
use casemate_catalog::{Catalog, CatalogError, Rate, Rates, Route};
use casemate_control::Control;
use casemate_control::sandboxes::wake::{self, WakeError};
use casemate_edge::{Edge, EdgeConfig, Knock, LookupFailure, RouteTarget, Routes, WakeFailure};
use casemate_front::{NodeDialer, answers};
use casemate_rpc::NodePort;
use casemate_types::{Entrance, SandboxId};
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
    /// Wires `control` behind the edge; `catalog` must be the one that control writes, and `rates`
    /// counts requests.
    pub fn new(
        setup: &ControlSetup,
        control: Arc<Control>,
        catalog: &CuttingCatalog,
        rates: Arc<dyn Rates>,
        node: Arc<dyn NodePort>,
        https: Option<Https>,
    ) -> anyhow::Result<Self> {
        let mut state = ApiState::new(Arc::clone(&control), metrics_access(&setup.config));
        if let Some(url) = &setup.config.public_url {
            state = state.with_public_url(url);
        }
        state = state.with_rate_limits(rate_limits(&setup.config), rates);
        if let Some(https) = &https {
            state = state.with_certificate_end(https.certificate_end());
        }
        let mut api = casemate_api::router(state);
        if let Some(https) = &https {
            api = https.with_challenges(api);
        }
        let routes = Arc::new(CatalogRoutes {
            control,
            catalog: Arc::clone(&catalog.inner),
            filled: catalog.filled.subscribe(),
        });
        let edge = Edge::new(
            edge_config(&setup.config)?,
            routes,
            Arc::new(NodeDialer::new(node)),
            api,
        );
        let edge = Arc::new(edge);
        if catalog.edge.set(Arc::clone(&edge)).is_err() {
            anyhow::bail!("a catalog serves one edge");
        }
        Ok(Self { edge, https })
    }

    /// Serves until `shutdown`, and then until what is open has ended or was cut.
    pub async fn serve(&self, doors: Doors, shutdown: CancellationToken) -> anyhow::Result<()> {
        serve_doors(&self.edge, self.https.as_ref(), doors, &shutdown).await
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

/// Serves an edge's listeners until `shutdown`, and then until what is open has ended or was cut.
pub async fn serve_doors(
    edge: &Edge,
    https: Option<&Https>,
    mut doors: Doors,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let mut take = |door| doors.remove(&door).map(listener).transpose();
    let http = take(Door::Http)?.context("there is no listener for http")?;
    let (tls, redirect) = (take(Door::Https)?, take(Door::Redirect)?);
    let https = async {
        if let (Some(https), Some(tls)) = (https, tls) {
            https.serve(edge, tls, redirect, shutdown).await;
        }
    };
    tokio::join!(edge.serve(http, shutdown.clone()), https);
    Ok(())
}

fn listener(listener: TcpListener) -> std::io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

pub fn edge_config(config: &Config) -> anyhow::Result<EdgeConfig> {
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

pub fn rate_limits(config: &Config) -> RateLimits {
    let limits = &config.rate_limits;
    let rate = |per_second, burst| (per_second > 0.0).then_some(Rate { per_second, burst });
    RateLimits {
        creates: rate(limits.creates_per_second, limits.creates_burst),
        changes: rate(limits.changes_per_second, limits.changes_burst),
        reads: rate(limits.reads_per_second, limits.reads_burst),
    }
}

pub fn metrics_access(config: &Config) -> casemate_api::MetricsAccess {
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
    control: Arc<Control>,
    catalog: Arc<dyn Catalog>,
    filled: watch::Receiver<bool>,
}

/// How long a request waits after a start until it is known what runs.
const FILLED_PATIENCE: Duration = Duration::from_secs(10);

impl CatalogRoutes {
    fn target(&self, sandbox: &SandboxId, route: Route) -> Result<RouteTarget, LookupFailure> {
        if route.asleep {
            return Ok(RouteTarget::Asleep);
        }
        let of_route = route.traffic_token;
        let entrance = Entrance {
            traffic_token: of_route
                .or_else(|| self.control.traffic_token_hash(sandbox, &route.ingress)),
            ingress: route.ingress,
        };
        let unknown = || LookupFailure::Failed("it is private, without a token".into());
        answers::running(entrance).ok_or_else(unknown)
    }

    /// Until the node has said what runs, nobody can say that a sandbox does not.
    async fn filled(&self) -> Result<(), LookupFailure> {
        let mut filled = self.filled.clone();
        match tokio::time::timeout(FILLED_PATIENCE, filled.wait_for(|filled| *filled)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(LookupFailure::Failed(
                "it is not known yet what runs".into(),
            )),
        }
    }
}

#[async_trait]
impl Routes for CatalogRoutes {
    async fn lookup(&self, sandbox: &SandboxId) -> Result<Option<RouteTarget>, LookupFailure> {
        // Where it stands is known when its pause is over.
        self.control.pause_over(sandbox).await;
        // Its route goes last, after its processes.
        if self.control.is_being_killed(sandbox) {
            return Ok(None);
        }
        let look = || async {
            let route = self.catalog.route_by_id(sandbox).await;
            route.map_err(|error| LookupFailure::Failed(Box::new(error)))
        };
        let mut route = look().await?;
        if route.is_none() && !*self.filled.borrow() {
            self.filled().await?;
            route = look().await?;
        }
        route.map(|route| self.target(sandbox, route)).transpose()
    }

    async fn wake(&self, sandbox: &SandboxId, knock: Knock) -> Result<(), WakeFailure> {
        let (control, id) = (Arc::clone(&self.control), sandbox.clone());
        let waking = async move {
            let knock = wake::Knock {
                for_agent: knock.for_agent,
                access_token: knock.access_token.as_ref().map(|token| token.as_bytes()),
                traffic_token: knock.traffic_token.as_ref().map(|token| token.as_bytes()),
            };
            control.wake(&id, knock).await
        };
        match self.control.tasks().detached(waking).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(WakeError::NotFound)) => Err(WakeFailure::NotFound),
            Ok(Err(WakeError::Denied)) => Err(WakeFailure::Denied),
            Ok(Err(WakeError::Quota(reached))) => Err(WakeFailure::TeamLimit(
                casemate_api::quota_text(reached.max),
            )),
            Ok(Err(WakeError::Transitioning)) => Err(WakeFailure::Transitioning),
            Ok(Err(error @ (WakeError::Unavailable(_) | WakeError::Store(_)))) => {
                Err(WakeFailure::Failed(Box::new(error)))
            }
            Err(lost) => Err(WakeFailure::Failed(Box::new(lost))),
        }
    }
}

/// A catalog that tells the edge: of a sandbox that begins to run, so that it dials ahead; of one
/// that ended or was paused, so that it cuts the sandbox's connections, after which no request comes
/// in between.
pub struct CuttingCatalog {
    inner: Arc<dyn Catalog>,
    edge: OnceLock<Arc<Edge>>,
    /// Those that run, and where.
    awake: Mutex<HashMap<SandboxId, String>>,
    /// A node has said what runs.
    filled: watch::Sender<bool>,
}

impl CuttingCatalog {
    pub fn new(inner: Arc<dyn Catalog>) -> Self {
        Self {
            inner,
            edge: OnceLock::new(),
            awake: Mutex::default(),
            filled: watch::Sender::new(false),
        }
    }

    fn cut(&self, sandbox: &SandboxId) {
        if let Some(edge) = self.edge.get() {
            edge.forget(sandbox);
        }
    }

    fn awake(&self) -> std::sync::MutexGuard<'_, HashMap<SandboxId, String>> {
        self.awake.lock().expect("no holder of this lock panics")
    }
}

#[async_trait]
impl Catalog for CuttingCatalog {
    async fn route_put(&self, sandbox: &SandboxId, route: Route) -> Result<bool, CatalogError> {
        let (asleep, node) = (route.asleep, route.node.clone());
        if !self.inner.route_put(sandbox, route).await? {
            return Ok(false);
        }
        if asleep {
            self.awake().remove(sandbox);
            self.cut(sandbox);
        } else {
            let new = self.awake().insert(sandbox.clone(), node).is_none();
            if let (true, Some(edge)) = (new, self.edge.get()) {
                edge.warm(sandbox);
            }
        }
        Ok(true)
    }

    async fn route_by_id(&self, sandbox: &SandboxId) -> Result<Option<Route>, CatalogError> {
        self.inner.route_by_id(sandbox).await
    }

    async fn route_remove(
        &self,
        sandbox: &SandboxId,
        node: &str,
        generation: u64,
    ) -> Result<bool, CatalogError> {
        let removed = self.inner.route_remove(sandbox, node, generation).await?;
        if removed {
            self.awake().remove(sandbox);
            self.cut(sandbox);
        }
        Ok(removed)
    }

    async fn routes_replace(
        &self,
        node: &str,
        routes: &[(SandboxId, Route)],
        unsure: &[SandboxId],
    ) -> Result<(), CatalogError> {
        self.inner.routes_replace(node, routes, unsure).await?;
        self.filled.send_replace(true);
        let gone: Vec<SandboxId> = {
            let mut awake = self.awake();
            let mut gone = std::mem::take(&mut *awake);
            for (sandbox, _) in routes.iter().filter(|(_, route)| !route.asleep) {
                gone.remove(sandbox);
                awake.insert(sandbox.clone(), node.to_owned());
            }
            for sandbox in unsure {
                awake.extend(gone.remove_entry(sandbox));
            }
            let (gone, stay): (Vec<_>, Vec<_>) = gone.into_iter().partition(|(_, n)| n == node);
            awake.extend(stay);
            gone.into_iter().map(|(sandbox, _)| sandbox).collect()
        };
        for sandbox in gone {
            self.cut(&sandbox);
        }
        Ok(())
    }
}
