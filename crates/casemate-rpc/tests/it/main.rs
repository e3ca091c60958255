//! Both ends of the wire over a real socket pair, with a node of a few lines behind.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use casemate_linux::scm;
use casemate_rpc::{
    CreateReply, CreateRequest, NodeClient, NodeError, NodeEvent, NodeInfo, NodePort, server,
};
use casemate_types::{CompiledPolicy, EndReason, Resources, SandboxId, Timestamp};
use tokio::sync::mpsc;

#[derive(Default)]
struct SmallNode {
    created: AtomicUsize,
    port: u16,
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

    async fn set_deadline(&self, _: &SandboxId, _: Timestamp) -> Result<(), NodeError> {
        Ok(())
    }

    async fn set_network(&self, _: &SandboxId, _: CompiledPolicy) -> Result<(), NodeError> {
        Ok(())
    }

    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<TcpStream, NodeError> {
        let closed = |_| NodeError::PortClosed {
            sandbox: sandbox.clone(),
            port,
        };
        TcpStream::connect(("127.0.0.1", self.port)).map_err(closed)
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
}

fn request(life_ms: u64) -> CreateRequest {
    CreateRequest {
        sandbox: SandboxId::random(),
        team: "0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162".parse().unwrap(),
        template: "base".parse().unwrap(),
        layers: vec!["base".into()],
        resources: Resources::BASE,
        network: CompiledPolicy::open(),
        envs: [("A".to_owned(), "x".repeat(200_000))].into(),
        access_token: None,
        default_user: "user".into(),
        default_workdir: None,
        life_ms,
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
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello");
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
