//! An edge in front of a node's gate, with mutual TLS over loopback between them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use casemate_cluster::{Authority, MemberKey, NodeConnector, Peers};
use casemate_edge::{Edge, EdgeConfig, InvalidHost};
use casemate_front::{Finder, NodeTable, Servers};
use casemate_linux::scm;
use casemate_rpc::control::{Admitted, ControlError, Member, MemberRole, NodeAddress};
use casemate_rpc::far::{FarNode, Purpose};
use casemate_rpc::gate::Gate;
use casemate_rpc::{NodeClient, NodePort, Peer, server};
use casemate_types::{Entrance, Ingress, SandboxId, TokenHash};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::support::{FakeNode, FakeServers, Has, LONG};

const ENVD: u16 = 49983;

fn peers(authority: &Authority, role: MemberRole, name: &str) -> Arc<Peers> {
    let member = Member {
        role,
        name: name.to_owned(),
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap().as_secs()).unwrap();
    let key = MemberKey::make().unwrap();
    let admitted = Admitted {
        certificate: authority.admit(&member, &key.public(), now).unwrap(),
        authorities: authority.certificate().to_owned(),
        lasts_seconds: 60,
        now_us: 0,
    };
    Arc::new(Peers::new(&key.admitted(member, &admitted)).unwrap())
}

/// The gate's listener on a node's machine.
async fn gate(node: Arc<FakeNode>, peers: Arc<Peers>) -> SocketAddr {
    let (ours, theirs) = scm::pair().unwrap();
    tokio::spawn(server::serve(
        theirs,
        Arc::clone(&node) as Arc<dyn NodePort>,
    ));
    let client = NodeClient::connect(ours).await.unwrap();
    let gate = Arc::new(Gate::new(Arc::new(client)));
    let following = Arc::clone(&gate);
    tokio::spawn(async move { following.follow().await });
    eventually(|| node.is_observed()).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (gate, peers) = (Arc::clone(&gate), Arc::clone(&peers));
            tokio::spawn(async move {
                let accepted = peers.accept_at_node(stream).await?;
                match accepted.purpose {
                    Purpose::Calls => gate.serve_calls(accepted.stream, Peer::Edge).await,
                    Purpose::Dial => gate.serve_dials(accepted.stream).await,
                    Purpose::Carry => Ok(()),
                }
            });
        }
    });
    address
}

async fn eventually(so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect("in time");
}

struct World {
    node: Arc<FakeNode>,
    servers: Arc<FakeServers>,
    edge: Edge,
    at: SocketAddr,
    /// A way to the node beside the edge's.
    beside: FarNode,
    /// Requests that wait in the sandbox's service.
    waiting: Arc<AtomicUsize>,
}

async fn world() -> World {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap().as_secs()).unwrap();
    let authority = Authority::read(&Authority::make(now).unwrap().record()).unwrap();
    let node = Arc::<FakeNode>::default();
    let waiting = Arc::<AtomicUsize>::default();
    let service = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    *node.service.lock().unwrap() = Some(service.local_addr().unwrap());
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route(
            "/wait",
            get(async |State(waiting): State<Arc<AtomicUsize>>| {
                waiting.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }),
        )
        .with_state(Arc::clone(&waiting));
    tokio::spawn(async move { axum::serve(service, router).await });
    let gate = gate(Arc::clone(&node), peers(&authority, MemberRole::Node, "n1")).await;
    let ours = peers(&authority, MemberRole::Edge, "e1");
    let beside = NodeConnector {
        peers: Arc::clone(&ours),
        node: "n1".into(),
        address: gate.to_string(),
    };
    let beside = FarNode::new("n1", beside);
    let table = NodeTable::new(move |one: &NodeAddress| {
        let connector = NodeConnector {
            peers: Arc::clone(&ours),
            node: one.node.clone(),
            address: one.address.clone(),
        };
        Arc::new(FarNode::new(&one.node, connector))
    });
    table.set(&[NodeAddress {
        node: "n1".into(),
        address: gate.to_string(),
    }]);
    let servers = Arc::<FakeServers>::default();
    let told: Arc<dyn Servers> = Arc::clone(&servers) as _;
    let finder = Arc::new(Finder::new(None, Arc::new(table), told));
    let config = EdgeConfig::new("demo.test");
    let routes = Arc::clone(&finder);
    let edge = Edge::new(config, routes, Arc::clone(&finder) as _, InvalidHost);
    finder.tell(edge.clone());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let serving = edge.clone();
    tokio::spawn(async move { serving.serve(listener, CancellationToken::new()).await });
    World {
        node,
        servers,
        edge,
        at,
        beside,
        waiting,
    }
}

impl World {
    /// Status and text of an answer; no status where the connection was cut.
    async fn ask(&self, id: &SandboxId, port: u16, path: &str, token: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {port}-{id}.demo.test\r\nconnection: close\r\n\
             e2b-traffic-access-token: {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await;
        // One that was cut may end with an error.
        let _ = read.expect("an answer or an end in time");
        let status = answer.split(' ').nth(1).map(|code| code.parse().unwrap());
        (status.unwrap_or(0), answer)
    }

    async fn until(&self, id: &SandboxId, port: u16, status: u16) -> String {
        let mut seen = (0, String::new());
        for _ in 0..200 {
            seen = self.ask(id, port, "/", "").await;
            if seen.0 == status {
                return seen.1;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{seen:?}");
    }
}

#[tokio::test]
async fn requests_reach_what_runs_and_what_does_not_is_said_as_on_one_machine() {
    let (world, id) = (world().await, SandboxId::random());
    world.node.put(&id, Has::running());
    // The connection to the node is made meanwhile.
    assert!(world.until(&id, 3000, 200).await.ends_with("hello"));
    for _ in 0..5 {
        assert_eq!(world.ask(&id, ENVD, "/", "").await.0, 200);
    }
    assert_eq!(world.edge.held(), (1, 1), "a connection to envd is kept");
    let nowhere = world.ask(&SandboxId::random(), 3000, "/", "").await;
    assert!(
        nowhere.0 == 502 && nowhere.1.contains("was not found"),
        "{nowhere:?}"
    );
    *world.node.service.lock().unwrap() = None;
    let closed = world.ask(&id, 3000, "/", "").await;
    assert!(
        closed.0 == 502 && closed.1.contains("port is not open"),
        "{closed:?}"
    );
}

#[tokio::test]
async fn a_private_sandbox_wants_its_token() {
    let (world, id) = (world().await, SandboxId::random());
    let entrance = Entrance {
        ingress: Ingress {
            allow_public_traffic: Some(false),
            ..Ingress::default()
        },
        traffic_token: Some(TokenHash(Sha256::digest("right").into())),
    };
    let private = Has {
        entrance: Some(entrance),
        ..Has::running()
    };
    world.node.put(&id, private);
    world.until(&id, ENVD, 200).await;
    let wrong = world.ask(&id, 3000, "/", "wrong").await;
    assert!(wrong.0 == 403 && wrong.1.contains("secured"), "{wrong:?}");
    assert_eq!(world.ask(&id, 3000, "/", "right").await.0, 200);
    // Paused a moment ago, it is said to be so, whatever was known here: API servers do not wake it.
    world.node.pause(&id).await;
    for token in ["wrong", "also wrong"] {
        *world.servers.refusal.lock().unwrap() = Some(ControlError::WakeDenied);
        let denied = world.ask(&id, 3000, "/", token).await;
        assert!(
            denied.0 == 403 && denied.1.contains("can't be resumed"),
            "{denied:?}"
        );
    }
    assert_eq!(world.servers.wakes.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_request_after_a_pause_wakes_and_the_one_after_an_end_is_told_so() {
    let (world, id) = (world().await, SandboxId::random());
    world.node.put(&id, Has::running());
    world.until(&id, ENVD, 200).await;
    let node = Arc::clone(&world.node);
    let woken = Box::new(move |id: &SandboxId| node.put(id, Has::running()));
    *world.servers.on_wake.lock().unwrap() = Some(woken);
    for round in 1..=3 {
        world.node.pause(&id).await;
        // The gate cuts the kept connection when it hears of it, and a request that is faster breaks.
        world.until(&id, ENVD, 200).await;
        assert_eq!(world.servers.wakes.load(Ordering::SeqCst), round);
    }
    world.node.end(&id).await;
    for port in [ENVD, 3000] {
        let gone = world.until(&id, port, 502).await;
        assert!(gone.contains("was not found"), "{gone}");
    }
    assert_eq!(world.edge.held(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_that_ask_at_once_after_a_pause_are_all_answered() {
    let (world, id) = (Arc::new(world().await), SandboxId::random());
    world.node.put(&id, Has::running());
    world.until(&id, 3000, 200).await;
    let node = Arc::clone(&world.node);
    let woken = Box::new(move |id: &SandboxId| node.put(id, Has::running()));
    *world.servers.on_wake.lock().unwrap() = Some(woken);
    for _ in 0..20 {
        let open = world.beside.dial(&id, 3000).await.unwrap();
        world.node.pause(&id).await;
        // What comes after the gate's cut is of the next run; the edge has not heard of it.
        let mut open = open.into_stream().unwrap();
        let cut = tokio::time::timeout(LONG, open.read(&mut [0])).await;
        assert_eq!(cut.expect("it is cut").unwrap_or(0), 0);
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (world, id) = (Arc::clone(&world), id.clone());
            all.spawn(async move { world.ask(&id, 3000, "/", "").await });
        }
        while let Some(answer) = all.join_next().await {
            let answer = answer.unwrap();
            assert_eq!(answer.0, 200, "{}", answer.1);
        }
    }
}

#[tokio::test]
async fn a_request_under_way_when_its_sandbox_ends_is_told_so() {
    let world = Arc::new(world().await);
    for port in [ENVD, 3000] {
        let id = SandboxId::random();
        world.node.put(&id, Has::running());
        world.until(&id, port, 200).await;
        let before = world.waiting.load(Ordering::SeqCst);
        let (asking, sandbox) = (Arc::clone(&world), id.clone());
        let asked = tokio::spawn(async move { asking.ask(&sandbox, port, "/wait", "").await });
        eventually(|| world.waiting.load(Ordering::SeqCst) > before).await;
        world.node.end(&id).await;
        let gone = asked.await.unwrap();
        assert!(
            gone.0 == 502 && gone.1.contains("was not found"),
            "{gone:?}"
        );
    }
}
