//! Two machines: a node behind its gate, and its callers, over connections that a test can break.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use casemate_linux::scm;
use casemate_rpc::control::{
    self, Admitted, ControlClient, ControlError, ControlPort, JoinRequest, Knock, Member,
    MemberRole, NodeAddress, NodePlace, RenewRequest,
};
use casemate_rpc::far::{Connect, FarNode, Purpose};
use casemate_rpc::gate::Gate;
use casemate_rpc::{
    Dialled, NodeClient, NodeError, NodeEvent, NodePort, PausedSandbox, Peer, Wire, server,
};
use casemate_types::{EndReason, Kept, PauseReason, Portable, SandboxId, SnapshotId, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{SmallNode, request};

/// The network between two machines.
struct Network {
    gate: Arc<Gate>,
    peer: Peer,
    cut: AtomicBool,
    connections: AtomicUsize,
    /// Ends of connections at the node's machine.
    open: Mutex<JoinSet<()>>,
}

#[derive(Clone)]
struct Cable(Arc<Network>);

#[async_trait]
impl Connect for Cable {
    async fn connect(&self, purpose: Purpose) -> io::Result<Box<dyn Wire>> {
        if self.0.cut.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.0.connections.fetch_add(1, Ordering::SeqCst);
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (gate, peer) = (Arc::clone(&self.0.gate), self.0.peer);
        self.0.open.lock().unwrap().spawn(async move {
            // Its end is what the test is about.
            let _ = match purpose {
                Purpose::Calls => gate.serve_calls(Box::new(theirs), peer).await,
                Purpose::Dial => gate.serve_dials(Box::new(theirs)).await,
                Purpose::Carry => Ok(()),
            };
        });
        Ok(Box::new(ours))
    }
}

impl Network {
    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        *self.open.lock().unwrap() = JoinSet::new();
    }

    fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

pub(super) struct World {
    pub(super) node: Arc<SmallNode>,
    network: Arc<Network>,
    pub(super) far: FarNode,
}

async fn world(port: u16, peer: Peer) -> World {
    let node = SmallNode {
        port,
        ..SmallNode::default()
    };
    world_of(node, peer).await
}

pub(super) async fn world_of(node: SmallNode, peer: Peer) -> World {
    let (ours, theirs) = scm::pair().unwrap();
    let node = Arc::new(node);
    let served: Arc<dyn NodePort> = Arc::clone(&node) as _;
    tokio::spawn(async move { server::serve(theirs, served).await });
    let gate = Arc::new(Gate::new(Arc::new(
        NodeClient::connect(ours).await.unwrap(),
    )));
    let following = Arc::clone(&gate);
    tokio::spawn(async move { following.follow().await });
    let network = Arc::new(Network {
        gate,
        peer,
        cut: AtomicBool::new(false),
        connections: AtomicUsize::new(0),
        open: Mutex::default(),
    });
    let far = FarNode::new("small", Cable(Arc::clone(&network)));
    connected(&far).await;
    World { node, network, far }
}

async fn connected(far: &FarNode) {
    let mut connected = far.connected();
    let waited = connected.wait_for(Option::is_some);
    tokio::time::timeout(Duration::from_secs(30), waited)
        .await
        .expect("it connects")
        .unwrap();
}

#[tokio::test]
async fn calls_of_any_length_and_their_errors_travel() {
    let World { node, far, .. } = world(0, Peer::Control).await;
    let made = far.create(request(1)).await.unwrap();
    assert_eq!(made.started_at, made.ends_at);
    let sandbox = SandboxId::random();
    let answer = far.kill(&sandbox, EndReason::Killed).await;
    assert_eq!(answer, Err(NodeError::NotFound(sandbox)));
    let page = far.snapshots(None).await.unwrap();
    assert_eq!(page.len(), casemate_rpc::SNAPSHOTS_PAGE);
    let mut large = request(0);
    large.envs.insert("B".into(), "y".repeat(scm::BYTES_MAX));
    let refused = far.create(large).await;
    assert!(
        matches!(refused, Err(NodeError::Unsupported { .. })),
        "{refused:?}"
    );
    let mut events = far.watch().await.unwrap();
    assert_eq!(events.recv().await, Some(NodeEvent::Synced));
    assert_eq!(node.created.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn calls_run_side_by_side() {
    let World { node, far, .. } = world(0, Peer::Control).await;
    let far = Arc::new(far);
    let mut all = JoinSet::new();
    let begun = std::time::Instant::now();
    for _ in 0..50 {
        let far = Arc::clone(&far);
        all.spawn(async move { far.create(request(200)).await.unwrap() });
    }
    while let Some(one) = all.join_next().await {
        one.unwrap();
    }
    assert_eq!(node.created.load(Ordering::SeqCst), 50);
    // One after the other they would take ten.
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_lost_connection_fails_what_is_under_way_and_is_made_again() {
    let World { node, network, far } = world(0, Peer::Control).await;
    let mut events = far.observe().await.unwrap();
    let slow = far.create(request(300));
    tokio::pin!(slow);
    tokio::select! {
        _ = &mut slow => panic!("it is slow"),
        () = tokio::time::sleep(Duration::from_millis(100)) => network.cut(),
    }
    assert_eq!(slow.await, Err(NodeError::Unreachable));
    assert_eq!(events.recv().await, None);
    let sandbox = SandboxId::random();
    let refused = far.kill(&sandbox, EndReason::Killed).await;
    assert_eq!(
        refused,
        Err(NodeError::Unreachable),
        "at once, not after a time"
    );
    let refused = far.dial(&sandbox, 80).await;
    assert!(
        matches!(refused, Err(NodeError::Unreachable)),
        "{refused:?}"
    );
    network.mend();
    connected(&far).await;
    assert!(far.create(request(0)).await.is_ok());
    // What was sent before is carried out all the same.
    tokio::time::timeout(Duration::from_secs(5), async {
        while node.created.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the node carries out what it was sent");
}

/// Its gate lives, and with it the connection.
#[tokio::test]
async fn a_node_that_hangs_is_not_reached_until_it_goes_on() {
    let (ours, theirs) = scm::pair().unwrap();
    let (hang, hung) = mpsc::channel::<(mpsc::Sender<()>, mpsc::Receiver<()>)>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            loop {
                match hung.try_recv() {
                    // All of the node stands still for as long as that takes.
                    Ok((hangs, until)) => {
                        hangs.send(()).unwrap();
                        until.recv().unwrap();
                    }
                    Err(mpsc::TryRecvError::Empty) => {}
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let node: Arc<dyn NodePort> = Arc::new(SmallNode::default());
        runtime.block_on(server::serve(theirs, node))
    });
    let gate = Gate::new(Arc::new(NodeClient::connect(ours).await.unwrap()));
    let network = Arc::new(Network {
        gate: Arc::new(gate),
        peer: Peer::Control,
        cut: AtomicBool::new(false),
        connections: AtomicUsize::new(0),
        open: Mutex::default(),
    });
    let far = FarNode::new("small", Cable(network));
    connected(&far).await;
    let mut events = far.watch().await.unwrap();
    assert_eq!(events.recv().await, Some(NodeEvent::Synced));

    let (go_on, until) = mpsc::channel();
    let (hangs, it_hangs) = mpsc::channel();
    hang.send((hangs, until)).unwrap();
    it_hangs.recv().unwrap();
    let asked = far.create(request(0));
    let told = tokio::time::timeout(Duration::from_secs(60), asked).await;
    assert_eq!(told.expect("it is told"), Err(NodeError::Unreachable));
    assert_eq!(events.recv().await, None);
    let refused = far.kill(&SandboxId::random(), EndReason::Killed).await;
    assert_eq!(refused, Err(NodeError::Unreachable));

    go_on.send(()).unwrap();
    connected(&far).await;
    assert!(far.create(request(0)).await.is_ok());
}

/// A service in a sandbox that answers each connection with what it heard, in capitals.
async fn shouting() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(read) = stream.read(&mut buffer).await {
                    if read == 0 {
                        break;
                    }
                    let loud = buffer[..read].to_ascii_uppercase();
                    if stream.write_all(&loud).await.is_err() {
                        return;
                    }
                }
                let _ = stream.write_all(b"(end)").await;
            });
        }
    });
    port
}

#[tokio::test]
async fn bytes_into_a_sandbox_have_a_connection_of_their_own_with_both_ends() {
    let World { network, far, .. } = world(shouting().await, Peer::Edge).await;
    for _ in 0..20 {
        let dialled = far.dial(&SandboxId::random(), 80).await.unwrap();
        assert!(matches!(dialled, Dialled::Far(_)));
        let mut stream = dialled.into_stream().unwrap();
        stream.write_all(b"hello").await.unwrap();
        // Half of it closed, the answer still comes, and then its end.
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "HELLO(end)");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // One for calls, one for each dial, and those that wait.
    let connections = network.connections.load(Ordering::SeqCst);
    assert!((21..=26).contains(&connections), "{connections}");
}

#[tokio::test]
async fn a_closed_port_is_no_lost_node_and_costs_no_connection() {
    let World { network, far, .. } = world(1, Peer::Edge).await;
    let sandbox = SandboxId::random();
    for _ in 0..10 {
        let refused = far.dial(&sandbox, 80).await;
        assert!(
            matches!(refused, Err(NodeError::PortClosed { port: 80, .. })),
            "{refused:?}"
        );
    }
    assert!(network.connections.load(Ordering::SeqCst) <= 16);
}

#[tokio::test]
async fn a_pause_cuts_what_is_open_into_the_sandbox_and_nothing_else() {
    let World { node, far, .. } = world(shouting().await, Peer::Control).await;
    let (paused, other) = (SandboxId::random(), SandboxId::random());
    let mut cut = far.dial(&paused, 80).await.unwrap().into_stream().unwrap();
    let mut stays = far.dial(&other, 80).await.unwrap().into_stream().unwrap();
    let event = NodeEvent::Paused(PausedSandbox {
        sandbox: paused.clone(),
        team: "0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162".parse().unwrap(),
        template: "base".parse().unwrap(),
        started_at: Timestamp::UNIX_EPOCH,
        at: Timestamp::UNIX_EPOCH,
        kept: Kept::Memory,
        reason: PauseReason::Asked,
        recorded: true,
        creator: String::new(),
    });
    let observers = node.observers.lock().unwrap().clone();
    for observer in observers {
        observer.send(event.clone()).await.unwrap();
    }
    let mut buffer = [0; 16];
    let ended = tokio::time::timeout(Duration::from_secs(5), cut.read(&mut buffer)).await;
    // Over TLS this is an error, because no end was announced; this cable knows no difference.
    assert_eq!(ended.expect("it is cut").unwrap_or(0), 0);
    stays.write_all(b"still").await.unwrap();
    let read = stays.read(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..read], b"STILL");
    // What comes after it is of another run.
    assert!(far.dial(&paused, 80).await.is_ok());
}

#[tokio::test]
async fn an_edge_hears_where_a_sandbox_is_and_how_its_traffic_comes_in() {
    let sandbox = SandboxId::random();
    let World { node, far, .. } = world(1, Peer::Edge).await;
    let located = far.locate(&sandbox).await.unwrap().unwrap();
    assert_eq!(node.locate(&sandbox).await, Ok(Some(located.clone())));
    assert!(located.entrance.unwrap().ingress.is_private());
    let World { far, .. } = world(0, Peer::Edge).await;
    assert_eq!(far.locate(&sandbox).await, Ok(None));
}

#[tokio::test]
async fn an_edge_may_look_dial_and_ask_who_it_is_and_no_more() {
    let World { node, far, .. } = world(shouting().await, Peer::Edge).await;
    let (sandbox, files) = (SandboxId::random(), SnapshotId::random());
    assert_eq!(far.create(request(0)).await, Err(NodeError::Denied));
    assert_eq!(
        far.kill(&sandbox, EndReason::Killed).await,
        Err(NodeError::Denied)
    );
    assert_eq!(far.remove_snapshot(&files).await, Err(NodeError::Denied));
    assert_eq!(far.watch().await.unwrap_err(), NodeError::Denied);
    assert_eq!(far.observe().await.unwrap_err(), NodeError::Denied);
    assert!(matches!(far.info().await, Err(NodeError::Internal { .. })));
    assert_eq!(node.created.load(Ordering::SeqCst), 0);
}

/// Whoever writes to the gate without keeping to the form is cut, and nobody else notices.
#[tokio::test]
async fn a_gate_bounds_what_it_reads() {
    let World { network, far, .. } = world(0, Peer::Control).await;
    for (purpose, bytes) in [
        (Purpose::Calls, &b"\xff\xff\xff\xff"[..]),
        (Purpose::Calls, b"\x00\x00\x00\x04nope"),
        (Purpose::Dial, b"\x00\x10\x00\x00"),
        (Purpose::Dial, b"\x00\x00\x00\x04nope"),
    ] {
        let mut stream = Cable(Arc::clone(&network)).connect(purpose).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut heard = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut heard));
        ended.await.expect("it is cut").unwrap();
    }
    assert!(far.create(request(0)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn silence_is_the_end_and_signs_of_life_are_not() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let quiet = tokio::spawn(ControlClient::connect(Box::new(ours)));
    // It answers the first question and falls silent.
    let mut theirs: DuplexStream = theirs;
    let length = theirs.read_u32().await.unwrap();
    let mut question = vec![0; length as usize];
    theirs.read_exact(&mut question).await.unwrap();
    let answer = br#"{"reply":{"id":1,"result":{"Ok":{"hello":{"version":7,"oldest":7}}}}}"#;
    theirs.write_u32(answer.len() as u32).await.unwrap();
    theirs.write_all(answer).await.unwrap();
    let client = quiet.await.unwrap().unwrap();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        theirs.write_u32(0).await.unwrap();
    }
    assert!(!client.is_closed());
    let begun = tokio::time::Instant::now();
    client.closed().await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(client.nodes().await, Err(ControlError::Unreachable));
}

#[derive(Default)]
struct SmallControl;

#[async_trait]
impl ControlPort for SmallControl {
    async fn join(&self, request: JoinRequest) -> Result<Admitted, ControlError> {
        match request.token_secret.as_str() {
            "right" => Ok(admitted(&request.member.to_string())),
            _ => Err(ControlError::NotAdmitted {
                why: "no such token".into(),
            }),
        }
    }

    async fn renew(&self, caller: &Member, _: RenewRequest) -> Result<Admitted, ControlError> {
        Ok(admitted(&caller.to_string()))
    }

    async fn nodes(&self) -> Result<Vec<NodeAddress>, ControlError> {
        Ok(vec![NodeAddress {
            node: "n1".into(),
            address: "10.0.0.1:8082".into(),
        }])
    }

    async fn wake(&self, _: &SandboxId, knock: Knock) -> Result<(), ControlError> {
        match knock.traffic_token.as_deref() {
            Some(b"token") => Ok(()),
            _ => Err(ControlError::WakeDenied),
        }
    }

    async fn home(&self, _: &SandboxId) -> Result<Option<String>, ControlError> {
        Ok(Some("n1".into()))
    }
}

fn admitted(whom: &str) -> Admitted {
    Admitted {
        certificate: whom.into(),
        authorities: String::new(),
        lasts_seconds: 60,
        now_us: 7,
    }
}

async fn control_of(peer: Option<Member>) -> ControlClient {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(control::serve(
        Box::new(theirs),
        peer,
        Arc::new(SmallControl),
    ));
    ControlClient::connect(Box::new(ours)).await.unwrap()
}

fn member(role: MemberRole) -> Member {
    Member {
        role,
        name: "one".into(),
    }
}

fn join(secret: &str) -> JoinRequest {
    JoinRequest {
        token_id: "t".into(),
        token_secret: secret.into(),
        member: member(MemberRole::Node),
        public_key: "please".into(),
        node: Some(NodePlace {
            address: "10.0.0.1:8082".into(),
            labels: BTreeMap::new(),
            isolation: "namespaces".into(),
        }),
    }
}

#[tokio::test]
async fn a_stranger_can_join_and_do_nothing_else() {
    let stranger = control_of(None).await;
    let not_admitted = |error| matches!(error, ControlError::NotAdmitted { .. });
    assert!(not_admitted(
        stranger.join(join("wrong")).await.unwrap_err()
    ));
    assert!(not_admitted(stranger.nodes().await.unwrap_err()));
    assert!(not_admitted(stranger.time_us().await.unwrap_err()));
    let renew = RenewRequest {
        public_key: "please".into(),
        node: None,
    };
    assert!(not_admitted(stranger.renew(renew).await.unwrap_err()));
    let woken = stranger.wake(&SandboxId::random(), Knock::default()).await;
    assert!(not_admitted(woken.unwrap_err()));
    let joined = stranger.join(join("right")).await.unwrap();
    assert_eq!(
        (joined.certificate.as_str(), joined.now_us),
        ("node one", 7)
    );
    assert!(!format!("{:?}", join("right")).contains("right"));
}

#[tokio::test]
async fn edges_have_sandboxes_woken_and_found_and_nodes_do_not() {
    let knock = |token: &[u8]| Knock {
        traffic_token: Some(token.to_vec()),
        ..Knock::default()
    };
    let sandbox = SandboxId::random();
    let edge = control_of(Some(member(MemberRole::Edge))).await;
    assert_eq!(edge.wake(&sandbox, knock(b"token")).await, Ok(()));
    let denied = edge.wake(&sandbox, knock(b"other")).await;
    assert_eq!(denied, Err(ControlError::WakeDenied));
    assert_eq!(edge.nodes().await.unwrap()[0].node, "n1");
    assert_eq!(edge.home(&sandbox).await, Ok(Some("n1".into())));
    let node = control_of(Some(member(MemberRole::Node))).await;
    let not_for_nodes = [
        node.wake(&sandbox, knock(b"token")).await,
        node.nodes().await.map(drop),
        node.home(&sandbox).await.map(drop),
    ];
    for refused in not_for_nodes {
        assert!(matches!(refused, Err(ControlError::NotAdmitted { .. })));
    }
}

#[tokio::test]
async fn nothing_is_packed_for_another_machine() {
    let world = world(0, Peer::Control).await;
    let mut connected = world.far.connected();
    let client = connected.wait_for(Option::is_some).await.unwrap().clone();
    let what = Portable::Snapshot(SnapshotId::random());
    for node in [&world.far as &dyn NodePort, &*client.unwrap()] {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let refused = node.pack(&what, theirs).await;
        assert!(
            matches!(refused, Err(NodeError::Unsupported { .. })),
            "{refused:?}"
        );
    }
}

/// Handshakes that never end, and how many there are of them.
#[derive(Clone, Default)]
struct Shaking(Arc<AtomicUsize>);

#[async_trait]
impl Connect for Shaking {
    async fn connect(&self, purpose: Purpose) -> io::Result<Box<dyn Wire>> {
        if purpose == Purpose::Dial {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        std::future::pending().await
    }
}

/// A gate ends the oldest of some hundred of one address: what is beyond them waits for its turn.
#[tokio::test(start_paused = true)]
async fn so_many_handshakes_are_made_at_once_however_many_dial() {
    let shaking = Shaking::default();
    let far = Arc::new(FarNode::new("small", shaking.clone()));
    let mut dials = JoinSet::new();
    for _ in 0..400 {
        let far = Arc::clone(&far);
        dials.spawn(async move { far.dial(&SandboxId::random(), 80).await.is_err() });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(shaking.0.load(Ordering::SeqCst), 100);
    // Whose turn does not come in time hears so.
    assert!(dials.join_all().await.into_iter().all(|failed| failed));
}
