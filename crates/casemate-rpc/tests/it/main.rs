//! Both ends of the wire over a real socket pair, with a node of a few lines behind.

mod carrying;
mod far;
mod hostile;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use casemate_linux::scm;
use casemate_rpc::{
    ClaimRequest, CreateReply, CreateRequest, Dialled, KeptSnapshot, Located, NodeClient,
    NodeError, NodeEvent, NodeInfo, NodePort, PauseReply, ResumeReply, ResumeRequest,
    SNAPSHOTS_PAGE, SealReply, SnapshotReply, server,
};
use casemate_types::{
    CompiledPolicy, Distribution, EndReason, Entrance, Ingress, Kept, LayerId, OnTimeout, Portable,
    Resources, SandboxId, SnapshotId, Timestamp, TokenHash,
};
use tokio::sync::mpsc;

#[derive(Default)]
struct SmallNode {
    created: AtomicUsize,
    port: u16,
    observers: Mutex<Vec<mpsc::Sender<NodeEvent>>>,
}

#[async_trait]
impl NodePort for SmallNode {
    async fn create(&self, request: CreateRequest) -> Result<CreateReply, NodeError> {
        tokio::time::sleep(Duration::from_millis(request.life_ms)).await;
        self.created.fetch_add(1, Ordering::SeqCst);
        let now = Timestamp::now();
        Ok(CreateReply {
            started_at: now,
            ends_at: now,
        })
    }

    async fn claim(
        &self,
        sandbox: &SandboxId,
        claim: ClaimRequest,
    ) -> Result<CreateReply, NodeError> {
        match claim.on_timeout {
            OnTimeout::Kill => Err(NodeError::Exists(sandbox.clone())),
            OnTimeout::Pause(_) => Ok(CreateReply {
                started_at: Timestamp::UNIX_EPOCH,
                ends_at: Timestamp::UNIX_EPOCH + Duration::from_millis(claim.life_ms),
            }),
        }
    }

    async fn recorded(&self, sandboxes: &[SandboxId]) -> Result<(), NodeError> {
        // What was told comes back in the only error that names sandboxes.
        match sandboxes {
            [] => Ok(()),
            [.., last] => Err(NodeError::StillEnding(last.clone())),
        }
    }

    async fn kill(&self, sandbox: &SandboxId, _: EndReason) -> Result<(), NodeError> {
        Err(NodeError::NotFound(sandbox.clone()))
    }

    async fn pause(&self, sandbox: &SandboxId, kept: Kept) -> Result<PauseReply, NodeError> {
        match kept {
            Kept::Memory => Ok(PauseReply {
                at: Timestamp::UNIX_EPOCH,
                kept,
            }),
            Kept::Files => Err(NodeError::Paused(sandbox.clone())),
        }
    }

    async fn resume(&self, request: ResumeRequest) -> Result<ResumeReply, NodeError> {
        Ok(ResumeReply {
            started_at: Timestamp::UNIX_EPOCH,
            ends_at: Timestamp::UNIX_EPOCH + Duration::from_millis(request.sandbox.life_ms),
            from: request.from,
        })
    }

    async fn snapshot(
        &self,
        sandbox: &SandboxId,
        _: &SnapshotId,
    ) -> Result<SnapshotReply, NodeError> {
        Err(NodeError::NotFound(sandbox.clone()))
    }

    async fn keep_paused(
        &self,
        _: &SandboxId,
        files: &SnapshotId,
    ) -> Result<SnapshotId, NodeError> {
        Ok(files.clone())
    }

    async fn remove_snapshot(&self, _: &SnapshotId) -> Result<(), NodeError> {
        Ok(())
    }

    /// As many as an answer may name; those after the last are none.
    async fn snapshots(&self, after: Option<&SnapshotId>) -> Result<Vec<KeptSnapshot>, NodeError> {
        let all = (0..SNAPSHOTS_PAGE).map(|number| KeptSnapshot {
            snapshot: SnapshotId::parse(&format!("s{number:063}")).unwrap(),
            bytes: Some(u64::MAX),
        });
        Ok(all
            .filter(|kept| after.is_none_or(|after| kept.snapshot > *after))
            .collect())
    }

    async fn seal(&self, snapshot: &SnapshotId, layer: &LayerId) -> Result<SealReply, NodeError> {
        match snapshot.is_of_pause() {
            true => Err(NodeError::NoSnapshot(snapshot.clone())),
            false => Ok(SealReply {
                bytes: layer.as_str().len() as u64,
            }),
        }
    }

    async fn remove_layer(&self, layer: &LayerId) -> Result<(), NodeError> {
        Err(NodeError::InUse(layer.clone()))
    }

    async fn layers(&self, after: Option<&LayerId>) -> Result<Vec<LayerId>, NodeError> {
        let all = (0..SNAPSHOTS_PAGE).map(|n| LayerId::parse(&format!("t-{n:032}")).unwrap());
        Ok(all
            .filter(|layer| after.is_none_or(|after| layer > after))
            .collect())
    }

    /// Everything, in its order.
    async fn missing(
        &self,
        layers: &[String],
        files: Option<&SnapshotId>,
    ) -> Result<Vec<String>, NodeError> {
        let files = files.map(SnapshotId::to_string);
        Ok(layers.iter().cloned().chain(files).collect())
    }

    /// Its name alone.
    async fn pack(&self, what: &Portable, mut to: UnixStream) -> Result<(), NodeError> {
        to.write_all(what.to_string().as_bytes()).unwrap();
        Ok(())
    }

    async fn unpack(&self, what: &Portable, mut from: UnixStream) -> Result<u64, NodeError> {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        match text == "a tree" {
            true => Ok(6),
            false => Err(NodeError::CarryFailed {
                what: what.clone(),
                why: text,
            }),
        }
    }

    async fn memory_kills(&self, _: &SandboxId) -> Result<u64, NodeError> {
        Ok(3)
    }

    async fn set_deadline(&self, _: &SandboxId, _: Timestamp) -> Result<(), NodeError> {
        Ok(())
    }

    async fn set_network(&self, _: &SandboxId, _: CompiledPolicy) -> Result<(), NodeError> {
        Ok(())
    }

    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<Dialled, NodeError> {
        let closed = |_| NodeError::PortClosed {
            sandbox: sandbox.clone(),
            port,
        };
        let socket = TcpStream::connect(("127.0.0.1", self.port)).map_err(closed);
        socket.map(Dialled::Near)
    }

    /// It has every sandbox, whose traffic is private.
    async fn locate(&self, sandbox: &SandboxId) -> Result<Option<Located>, NodeError> {
        if self.port == 0 {
            return Ok(None);
        }
        let name = sandbox.as_str().as_bytes();
        Ok(Some(Located {
            asleep: true,
            started_at: Timestamp::UNIX_EPOCH,
            entrance: Some(Entrance {
                ingress: Ingress {
                    allow_public_traffic: Some(false),
                    ..Ingress::default()
                },
                traffic_token: Some(TokenHash([name[0]; 32])),
            }),
        }))
    }

    async fn info(&self) -> Result<NodeInfo, NodeError> {
        Err(NodeError::Internal {
            why: "this node says nothing of itself".into(),
        })
    }

    async fn watch(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        let (sender, receiver) = mpsc::channel(8);
        sender
            .send(NodeEvent::Synced)
            .await
            .map_err(|_| NodeError::Unreachable)?;
        Ok(receiver)
    }

    /// Whoever observes hears once that the sandbox of this name was paused, when it is told to.
    async fn observe(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        let (sender, receiver) = mpsc::channel(8);
        self.observers.lock().unwrap().push(sender);
        Ok(receiver)
    }
}

fn request(life_ms: u64) -> CreateRequest {
    CreateRequest {
        sandbox: SandboxId::random(),
        team: "0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162".parse().unwrap(),
        template: "base".parse().unwrap(),
        layers: vec!["base".into()],
        distribution: Some(Distribution::Other),
        resources: Resources::BASE,
        network: CompiledPolicy::open(),
        envs: [("A".to_owned(), "x".repeat(200_000))].into(),
        access_token: None,
        default_user: "user".into(),
        default_workdir: None,
        life_ms,
        on_timeout: OnTimeout::Pause(Kept::Files),
        files: None,
        startup: None,
        warm: false,
        creator: String::new(),
        entrance: None,
    }
}

async fn connect(node: SmallNode) -> (NodeClient, Arc<SmallNode>, tokio::task::JoinHandle<()>) {
    let (ours, theirs) = scm::pair().unwrap();
    let node = Arc::new(node);
    let port: Arc<dyn NodePort> = Arc::clone(&node) as _;
    let served = tokio::spawn(async move { server::serve(theirs, port).await.unwrap() });
    (NodeClient::connect(ours).await.unwrap(), node, served)
}

#[tokio::test]
async fn calls_run_side_by_side_and_errors_keep_their_kind() {
    let (client, _node, _served) = connect(SmallNode::default()).await;
    let slow = client.create(request(300));
    let sandbox = SandboxId::random();
    let quick = client.kill(&sandbox, EndReason::Killed);
    tokio::pin!(slow);
    tokio::select! {
        _ = &mut slow => panic!("the quick call waited for the slow one"),
        answer = quick => assert_eq!(answer, Err(NodeError::NotFound(sandbox.clone()))),
    }
    assert!(slow.await.is_ok());
}

#[tokio::test]
async fn a_claim_says_until_when_or_why_not() {
    let (client, _node, _served) = connect(SmallNode::default()).await;
    let sandbox = SandboxId::random();
    let claim = |on_timeout| ClaimRequest {
        life_ms: 1500,
        on_timeout,
        entrance: None,
    };
    let claimed = client
        .claim(&sandbox, claim(OnTimeout::Pause(Kept::Files)))
        .await;
    let until = Timestamp::UNIX_EPOCH + Duration::from_millis(1500);
    assert_eq!(claimed.unwrap().ends_at, until);
    assert_eq!(
        client.claim(&sandbox, claim(OnTimeout::Kill)).await,
        Err(NodeError::Exists(sandbox.clone()))
    );
}

#[tokio::test]
async fn thousands_of_rows_are_told_in_one_call() {
    let (client, _node, _served) = connect(SmallNode::default()).await;
    assert_eq!(client.recorded(&[]).await, Ok(()));
    let many: Vec<_> = (0..4096).map(|_| SandboxId::random()).collect();
    let last = many.last().unwrap().clone();
    assert_eq!(
        client.recorded(&many).await,
        Err(NodeError::StillEnding(last))
    );
}

#[tokio::test]
async fn a_dialled_connection_arrives_as_a_descriptor() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (client, ..) = connect(SmallNode {
        port,
        ..SmallNode::default()
    })
    .await;
    let mut stream = client.dial(&SandboxId::random(), 80).await.unwrap();
    let (mut inside, _) = listener.accept().unwrap();
    inside.write_all(b"hello").unwrap();
    let mut said = [0; 5];
    let Dialled::Near(stream) = &mut stream else {
        panic!("it is on this machine");
    };
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello");
}

#[tokio::test]
async fn what_is_carried_goes_over_a_socket_of_the_callers() {
    let (client, ..) = connect(SmallNode::default()).await;
    let what = Portable::Layer(LayerId::random());
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    client.pack(&what, theirs).await.unwrap();
    let mut said = String::new();
    ours.read_to_string(&mut said).unwrap();
    assert_eq!(said, what.to_string());
    for (tree, expected) in [("a tree", Ok(6)), ("no tree", Err("no tree"))] {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(tree.as_bytes()).unwrap();
        drop(ours);
        let expected = expected.map_err(|why| NodeError::CarryFailed {
            what: what.clone(),
            why: why.to_owned(),
        });
        assert_eq!(client.unpack(&what, theirs).await, expected);
    }
}

#[tokio::test]
async fn a_create_is_carried_out_though_control_left() {
    let (client, node, served) = connect(SmallNode::default()).await;
    let create = tokio::time::timeout(Duration::from_millis(50), client.create(request(200)));
    assert!(create.await.is_err());
    drop(client);
    served.await.unwrap();
    assert_eq!(node.created.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_watch_and_the_calls_end_with_the_node() {
    let (client, _node, served) = connect(SmallNode::default()).await;
    let mut events = client.watch().await.unwrap();
    assert_eq!(events.recv().await, Some(NodeEvent::Synced));
    served.abort();
    assert_eq!(events.recv().await, None);
    let answer = client
        .set_deadline(&SandboxId::random(), Timestamp::now())
        .await;
    assert_eq!(answer, Err(NodeError::Unreachable));
}

#[tokio::test]
async fn a_request_larger_than_a_message_is_refused_by_its_sender() {
    let (client, node, _served) = connect(SmallNode::default()).await;
    let mut large = request(0);
    large.envs.insert("B".into(), "y".repeat(scm::BYTES_MAX));
    assert!(matches!(
        client.create(large).await,
        Err(NodeError::Unsupported { .. })
    ));
    assert!(client.create(request(0)).await.is_ok());
    assert_eq!(node.created.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn pauses_and_snapshots_travel_and_a_page_of_them_fits() {
    let (client, _node, _served) = connect(SmallNode::default()).await;
    let sandbox = SandboxId::random();
    let paused = client.pause(&sandbox, Kept::Memory).await.unwrap();
    assert_eq!(
        (paused.at, paused.kept),
        (Timestamp::UNIX_EPOCH, Kept::Memory)
    );
    let refused = client.pause(&sandbox, Kept::Files).await;
    assert_eq!(refused, Err(NodeError::Paused(sandbox.clone())));
    let request = ResumeRequest {
        sandbox: request(5),
        from: Kept::Files,
        with_memory_only: false,
    };
    let resumed = client.resume(request).await.unwrap();
    assert_eq!(resumed.ends_at.as_millisecond(), 5);
    assert_eq!(resumed.from, Kept::Files);
    let snapshot = SnapshotId::random();
    let taken = client.snapshot(&sandbox, &snapshot).await;
    assert_eq!(taken, Err(NodeError::NotFound(sandbox.clone())));
    let kept = client.keep_paused(&sandbox, &snapshot).await;
    assert_eq!(kept, Ok(snapshot.clone()));
    client.remove_snapshot(&snapshot).await.unwrap();
    let page = client.snapshots(None).await.unwrap();
    assert_eq!(page.len(), SNAPSHOTS_PAGE);
    let last = &page.last().unwrap().snapshot;
    assert_eq!(client.snapshots(Some(last)).await.unwrap(), []);
}

#[tokio::test]
async fn layers_travel_and_a_page_of_them_fits() {
    let (client, _node, _served) = connect(SmallNode::default()).await;
    let (kept, paused) = (SnapshotId::random(), SnapshotId::random_of_pause());
    let layer = LayerId::random();
    let sealed = client.seal(&kept, &layer).await;
    assert_eq!(sealed, Ok(SealReply { bytes: 22 }));
    let missing = client.seal(&paused, &layer).await;
    assert_eq!(missing, Err(NodeError::NoSnapshot(paused)));
    let in_use = client.remove_layer(&layer).await;
    assert_eq!(in_use, Err(NodeError::InUse(layer)));
    let page = client.layers(None).await.unwrap();
    assert_eq!(page.len(), SNAPSHOTS_PAGE);
    assert_eq!(client.layers(page.last()).await, Ok(Vec::new()));
    let (names, files) = (["t-1", "base"].map(String::from), SnapshotId::random());
    let missing = client.missing(&names, Some(&files)).await.unwrap();
    assert_eq!(missing, ["t-1", "base", files.as_str()]);
    assert_eq!(client.missing(&[], None).await, Ok(Vec::new()));
    assert_eq!(client.memory_kills(&SandboxId::random()).await, Ok(3));
}
