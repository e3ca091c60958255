//! The life of an edge.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use casemate_catalog::{Catalog, RedisCatalog, ResilientCatalog};
use casemate_cluster::{NodeConnector, Peers};
use casemate_edge::Edge;
use casemate_front::{Finder, NodeTable, Servers, keep_listed};
use casemate_rpc::NodePort;
use casemate_rpc::control::NodeAddress;
use casemate_rpc::far::FarNode;
use casemate_types::pauses::drawn;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::no_api;
use crate::config::{Config, Role};
use crate::control::front::{edge_config, serve_doors};
use crate::control::https::Https;
use crate::control::{ANNOUNCED, ASKED_TIMEOUT};
use crate::credentials;
use crate::data_dir::DataDir;
use crate::health::{self, Health, gauge};
use crate::holder::Holder;
use crate::member::{Membership, NotEntered, Place, Wanted};
use crate::output::Output;
use crate::signals::EndSignals;
use crate::up::doors::{self, Door, Doors};

/// In the data directory: whom API servers named last.
const NODES: &str = "nodes.json";
/// Routes that are known while Redis is away.
const ROUTES_MAX: usize = 100_000;
/// How long nobody is let in while it is not known who is in the cluster.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// How long what is open may take to end once the listener was left.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(60);
/// Waits between attempts to join, doubled from the first to the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(15);

pub(super) async fn serve(config: Config, output: &Output) -> anyhow::Result<()> {
    let mut signals = EndSignals::new()?;
    let mut doors = doors::open(&config, Doors::new()).await?;
    let dir = DataDir::open(&config.data_dir)?;
    Holder::note(&config, &dir)?;
    let wanted = Wanted::of(&config, &Place::of(&dir))?;
    let name = wanted.name().to_owned();
    let membership = tokio::select! {
        entered = enter(wanted) => entered?,
        () = signals.next() => return Ok(()),
    };
    // Ends what goes on beside the requests of clients, when it is dropped.
    let mut tasks = JoinSet::new();
    let nodes = nodes(&dir, &membership, &mut tasks);
    let told: Arc<dyn Servers> = Arc::clone(&membership.servers) as _;
    let finder = Arc::new(Finder::new(catalog(&config)?, Arc::clone(&nodes), told));
    let https = Https::own(&config, &dir, &mut tasks).await?;
    let mut api = no_api::router(&config.domain);
    if let Some(https) = &https {
        api = https.with_challenges(api);
    }
    let (routes, dialer) = (Arc::clone(&finder), Arc::clone(&finder));
    let edge = Edge::new(edge_config(&config)?, routes, dialer, api);
    finder.tell(edge.clone());
    let ending = CancellationToken::new();
    let health_door = doors.remove(&Door::Health);
    let health_door = health_door.context("no listener for health")?;
    let health = Arc::new(EdgeHealth {
        nodes: Arc::clone(&nodes),
        finder,
        edge: edge.clone(),
    });
    let watched = health::serve(health_door, Role::Edge, health, ending.clone());
    tasks.spawn(async move {
        if let Err(error) = watched.await {
            tracing::error!(%error, "the health listener ended");
        }
    });
    tasks.spawn(async move { membership.keep_renewed().await });

    // Whoever connects in the first moment waits for it instead of hearing that nothing is there.
    let _ = tokio::time::timeout(FIRST_WAIT, nodes.any()).await;
    let shutdown = CancellationToken::new();
    let serving = serve_doors(&edge, https.as_ref(), doors, &shutdown);
    let mut serving = std::pin::pin!(serving);
    let url = credentials::local_url(&config);
    output.line(&format!("casemate edge {name} ready {url}"));
    tokio::select! {
        served = &mut serving => return served,
        () = signals.next() => {}
    }
    let leaving = async {
        output.note("stopping; Ctrl-C again stops at once");
        let ((), left) = tokio::join!(
            leave(&edge, &ending, &shutdown),
            tokio::time::timeout(LEAVE_TIMEOUT, &mut serving)
        );
        left.unwrap_or_else(|_| {
            tracing::warn!("connections that are open are cut");
            Ok(())
        })
    };
    tokio::select! {
        left = leaving => left,
        () = signals.next() => {
            output.note("stopped at once");
            Ok(())
        }
    }
}

/// Joins at the first start, again and again until it is done or of no use.
async fn enter(wanted: Wanted) -> anyhow::Result<Membership> {
    let mut wait = RETRY_FIRST;
    loop {
        match wanted.clone().enter().await {
            Ok((membership, _)) => return Ok(membership),
            Err(NotEntered::ForGood(error)) => return Err(error),
            Err(NotEntered::Now(error)) => {
                let why = format!("{error:#}");
                tracing::warn!(why, "waiting for an API server of the cluster: {why}");
            }
        }
        tokio::time::sleep(drawn(wait)).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
}

/// The nodes of the cluster, as known from before, and followed from now on.
fn nodes(dir: &DataDir, membership: &Membership, tasks: &mut JoinSet<()>) -> Arc<NodeTable> {
    let peers = Arc::clone(&membership.peers);
    let table = Arc::new(NodeTable::new(move |node| reach(&peers, node)));
    let path = dir.root().join(NODES);
    if let Err(error) = table.read(&path) {
        let error = casemate_types::chain(&error);
        tracing::warn!(error, "it is not known from before who is in the cluster");
    }
    let servers: Arc<dyn Servers> = Arc::clone(&membership.servers) as _;
    tasks.spawn(keep_listed(Arc::clone(&table), servers, path));
    table
}

fn reach(peers: &Arc<Peers>, node: &NodeAddress) -> Arc<dyn NodePort> {
    let connector = NodeConnector {
        peers: Arc::clone(peers),
        node: node.node.clone(),
        address: node.address.clone(),
    };
    Arc::new(FarNode::new(&node.node, connector))
}

/// What API servers say of routes, where there is a Redis to say it in.
fn catalog(config: &Config) -> anyhow::Result<Option<Arc<dyn Catalog>>> {
    let Some(settings) = config.redis.settings()? else {
        return Ok(None);
    };
    let redis = RedisCatalog::open(settings).context("[redis]")?;
    Ok(Some(Arc::new(ResilientCatalog::new(redis, ROUTES_MAX))))
}

/// Says that it goes, lets go of the listeners, and waits for what still looks for its sandbox.
async fn leave(edge: &Edge, ending: &CancellationToken, shutdown: &CancellationToken) {
    ending.cancel();
    edge.announce_end();
    tokio::time::sleep(ANNOUNCED).await;
    shutdown.cancel();
    let asked = tokio::time::timeout(ASKED_TIMEOUT, edge.asked()).await;
    if asked.is_err() {
        tracing::warn!("requests that are under way take too long to wait for");
    }
}

struct EdgeHealth {
    nodes: Arc<NodeTable>,
    finder: Arc<Finder>,
    edge: Edge,
}

#[async_trait]
impl Health for EdgeHealth {
    /// API servers and Redis may be away: what runs is reached without them.
    async fn missing(&self) -> Vec<String> {
        match self.nodes.count() {
            0 => vec!["it knows no node".into()],
            _ => Vec::new(),
        }
    }

    async fn metrics(&self, text: &mut String) {
        let figures = self.finder.figures();
        let (linked, idle) = self.edge.held();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let values: [(&str, &str, u64); 10] = [
            (
                "casemate_edge_connections",
                "Connections of clients",
                count(self.edge.connections()),
            ),
            (
                "casemate_edge_sandboxes",
                "Sandboxes with requests or connections open",
                count(linked),
            ),
            (
                "casemate_edge_idle_connections",
                "Connections to agents that wait for a request",
                count(idle),
            ),
            (
                "casemate_edge_nodes",
                "Nodes of the cluster",
                count(self.nodes.count()),
            ),
            (
                "casemate_edge_routes",
                "Sandboxes of which something is remembered",
                count(figures.known),
            ),
            (
                "casemate_edge_lookups_remembered",
                "Look-ups that needed nobody",
                figures.remembered,
            ),
            (
                "casemate_edge_lookups_catalog",
                "Look-ups that Redis answered",
                figures.catalog,
            ),
            (
                "casemate_edge_lookups_catalog_away",
                "Look-ups that Redis could not be asked for",
                figures.catalog_away,
            ),
            (
                "casemate_edge_searches",
                "Times that all nodes were asked for one sandbox",
                figures.searches,
            ),
            (
                "casemate_edge_searches_refused",
                "Times that they were not, because there were too many",
                figures.searches_refused,
            ),
        ];
        for (name, help, value) in values {
            gauge(text, name, help, value);
        }
    }
}
