//! The gate process of a node: takes connections of API servers and edges, finds out who comes, and
//! carries what they say to the node. Without privileges; it holds the node's certificate and renews
//! it, because whoever reads answers of other machines is not root.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use casemate_carrier::NearCarrier;
use casemate_cluster::{Accepted, Arrivals, At, Seldom, Shares};
use casemate_rpc::carrier::{self, Carrier};
use casemate_rpc::control::{Member, MemberRole};
use casemate_rpc::far::Purpose;
use casemate_rpc::gate::Gate;
use casemate_rpc::{NodeClient, NodePort, Peer};
use casemate_types::steady;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

mod servers;

use crate::config::{Config, Role};
use crate::control::beside;
use crate::health::{self, Health, gauge};
use crate::member::{Membership, Place, Wanted};
use crate::up::doors::{Door, Doors};
use crate::{bucket, child, log};
use servers::ApiServers;

/// What the process is started with; the listeners come along.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GateSetup {
    pub config: Config,
    pub place: Place,
    /// What the listeners are, in their order.
    pub doors: Vec<Door>,
    /// Of steady time.
    pub origin: i64,
}

/// Connections of members at once: some thousands of edges' connections into sandboxes, and each is
/// two descriptors here.
const CONNECTIONS_MAX: usize = 32 * 1024;
/// Those of one member.
const CONNECTIONS_OF_ONE_MAX: usize = CONNECTIONS_MAX / 2;
/// How long connections into sandboxes may go on when the gate leaves.
const LINGER: Duration = Duration::from_secs(10);

pub fn run() -> anyhow::Result<()> {
    let (setup, fds, socket) = child::receive::<GateSetup>()?;
    steady::set_origin(setup.origin);
    log::start(&setup.config.log)?;
    crate::up::raise_open_files();
    ensure!(
        fds.len() == setup.doors.len(),
        "the gate needs {} descriptors, got {}",
        setup.doors.len(),
        fds.len()
    );
    let doors = setup.doors.iter().copied().zip(fds);
    let doors: Doors = doors.map(|(door, fd)| (door, fd.into())).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(child::workers())
        .enable_all()
        .build()?;
    runtime.block_on(serve(setup, doors, socket))
}

async fn serve(setup: GateSetup, mut doors: Doors, socket: OwnedFd) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut take = |door| doors.remove(&door).context("a listener is missing");
    let (listener, health_listener) = (take(Door::Cluster)?, take(Door::Health)?);
    let client = NodeClient::connect(socket).await;
    let client = Arc::new(client.context("speak to the node")?);
    let membership = Wanted::of(&setup.config, &setup.place)?.membership()?;
    let gate = Arc::new(Gate::new(Arc::clone(&client)));
    let ending = CancellationToken::new();
    let looked_at = Arc::new(GateHealth {
        node: Arc::clone(&client),
        connections: TaskTracker::new(),
        servers: Arc::new(ApiServers::new()),
    });
    let connections = looked_at.connections.clone();
    let servers = Arc::clone(&looked_at.servers);
    let watched: Arc<dyn Health> = looked_at;
    let health = health::serve(health_listener, Role::Node, watched, ending.clone());
    let bucket = setup.config.artifacts.open()?;
    let told = bucket::told(bucket.clone(), setup.config.artifacts.bucket.clone());
    let carrier = bucket.map(|bucket| {
        let node: Arc<dyn NodePort> = Arc::clone(&client) as _;
        Arc::new(NearCarrier::new(node, bucket)) as Arc<dyn Carrier>
    });
    let offer = Offer {
        gate: Arc::clone(&gate),
        carrier,
        servers: Arc::clone(&servers),
    };
    let serving = accept(listener, &membership, &offer, &connections, &ending);
    let serving = beside(serving, told);
    tokio::select! {
        served = serving => return served,
        served = health => return served.context("the health listener"),
        followed = gate.follow() => return followed.context("follow the node's sandboxes"),
        () = membership.keep_renewed() => {}
        () = servers.watch(&membership) => {}
        () = client.closed() => return Ok(()),
        _ = terminate.recv() => {}
    }
    // Callers find nobody from now on, and come to the next one.
    ending.cancel();
    client.leave().await;
    connections.close();
    let _ = tokio::time::timeout(LINGER, connections.wait()).await;
    Ok(())
}

/// What members find here.
#[derive(Clone)]
struct Offer {
    gate: Arc<Gate>,
    carrier: Option<Arc<dyn Carrier>>,
    servers: Arc<ApiServers>,
}

async fn accept(
    listener: TcpListener,
    membership: &Membership,
    offer: &Offer,
    connections: &TaskTracker,
    ending: &CancellationToken,
) -> anyhow::Result<()> {
    let peers = Arc::clone(&membership.peers);
    let mut arrivals = Arrivals::of(listener, peers, At::Node).context("the gate's listener")?;
    let shares = Shares::new(CONNECTIONS_OF_ONE_MAX);
    let (too_many, refused) = (Seldom::default(), Arc::new(Seldom::default()));
    while let Some(accepted) = arrivals.next().await {
        // Without a certificate nobody comes through here.
        let Some(member) = accepted.member.clone() else {
            continue;
        };
        let share = shares.take(&member);
        let Some(share) = share.filter(|_| connections.len() < CONNECTIONS_MAX) else {
            if let Some(untold) = too_many.happened() {
                warn!(member = %member, untold, "too many connections of {member}: one is closed");
            }
            continue;
        };
        let (offer, ending, refused) = (offer.clone(), ending.clone(), Arc::clone(&refused));
        connections.spawn(async move {
            if !offer.serve_one(&member, accepted, &ending).await
                && let Some(untold) = refused.happened()
            {
                warn!(
                    member = %member, untold,
                    "{member} wants something that this node has not for it: it gets nothing"
                );
            }
            drop(share);
        });
    }
    Ok(())
}

impl Offer {
    /// Whether there was anything for it.
    async fn serve_one(
        &self,
        member: &Member,
        accepted: Accepted,
        ending: &CancellationToken,
    ) -> bool {
        let peer = match member.role {
            MemberRole::Api => Peer::Control,
            MemberRole::Edge => Peer::Edge,
            MemberRole::Node => return false,
        };
        debug!(member = %member, purpose = ?accepted.purpose, "serving {member}");
        let served = match accepted.purpose {
            Purpose::Calls => {
                let _speaking = matches!(peer, Peer::Control).then(|| self.servers.begin());
                let serving = self.gate.serve_calls(accepted.stream, peer);
                ending.run_until_cancelled(serving).await.unwrap_or(Ok(()))
            }
            Purpose::Dial => self.gate.serve_dials(accepted.stream).await,
            Purpose::Carry => match (peer, &self.carrier) {
                (Peer::Control, Some(carrier)) => {
                    let serving = carrier::serve(accepted.stream, Arc::clone(carrier));
                    ending.run_until_cancelled(serving).await.unwrap_or(Ok(()))
                }
                // There is a bucket for API servers, and none here; or none for edges.
                (Peer::Control, None) | (Peer::Edge, _) => return false,
            },
        };
        if let Err(error) = served {
            debug!(%error, member = %member, "a connection of {member} ended");
        }
        true
    }
}

struct GateHealth {
    node: Arc<NodeClient>,
    connections: TaskTracker,
    servers: Arc<ApiServers>,
}

#[async_trait]
impl Health for GateHealth {
    async fn missing(&self) -> Vec<String> {
        let node = match self.node.info().await {
            Ok(info) if info.ready => None,
            Ok(_) => Some("the node is not ready to make sandboxes"),
            Err(_) => Some("the node does not answer"),
        };
        let missing = node.into_iter().chain(self.servers.missing());
        missing.map(String::from).collect()
    }

    async fn metrics(&self, text: &mut String) {
        let (name, help) = ("casemate_gate_connections", "Connections of members");
        gauge(text, name, help, self.connections.len());
        let Ok(info) = self.node.info().await else {
            return;
        };
        let cache = info.cache.unwrap_or_default();
        let values: [(&str, &str, u64); 12] = [
            (
                "casemate_sandboxes",
                "Sandboxes that run or start",
                info.sandboxes.into(),
            ),
            (
                "casemate_sandboxes_max",
                "As many may",
                info.sandboxes_max.into(),
            ),
            (
                "casemate_queue_length",
                "Creates that wait",
                info.queue_length.into(),
            ),
            (
                "casemate_slots_ready",
                "Prepared network slots",
                info.slots_ready.into(),
            ),
            (
                "casemate_layers_ready",
                "Prepared writable layers",
                info.layers_ready.into(),
            ),
            (
                "casemate_memory_promised_bytes",
                "Sum of memory limits",
                info.memory_promised_bytes,
            ),
            (
                "casemate_memory_available_bytes",
                "Free memory",
                info.memory_available_bytes,
            ),
            (
                "casemate_disk_free_bytes",
                "Free space on the disk of the data directory",
                info.disk_free_bytes,
            ),
            (
                "casemate_layers_left_bytes",
                "What sandboxes can still write",
                info.layers_left_bytes,
            ),
            (
                "casemate_cache_bytes",
                "Layers and kept files that lie in the bucket too",
                cache.bytes,
            ),
            (
                "casemate_cache_bytes_max",
                "Beyond it the least recently used of them go",
                cache.bytes_max,
            ),
            (
                "casemate_cache_evictions",
                "Of them removed to make room since the start",
                cache.evictions,
            ),
        ];
        for (name, help, value) in values {
            gauge(text, name, help, value);
        }
    }
}
