//! Ends that say too much, or take no answers.

use std::sync::Arc;
use std::time::Duration;

use casemate_linux::scm;
use casemate_rpc::{NodeClient, NodeEvent, NodePort, Peer, server};
use casemate_types::{SandboxId, Timestamp};
use tokio::io::AsyncWriteExt;

use super::SmallNode;

#[tokio::test]
async fn what_is_asked_and_not_taken_is_not_read_for_ever() {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let node: Arc<dyn NodePort> = Arc::new(SmallNode::default());
    let serving = tokio::spawn(server::serve_stream(Box::new(theirs), Peer::Edge, node));
    let call = br#"{"id":1,"call":{"locate":{"sandbox":"iaaaaaaaaaaaaaaaaaaaa"}}}"#;
    let mut frame = u32::try_from(call.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(call);
    let (_unread, mut asking) = tokio::io::split(ours);
    let mut asked = 0;
    while let Ok(Ok(())) =
        tokio::time::timeout(Duration::from_secs(2), asking.write_all(&frame)).await
    {
        asked += 1;
        assert!(asked < 100_000, "it reads on and on");
    }
    // Answers that wait, calls at once, and what lies in buffers.
    assert!(asked < 8192, "{asked}");
    drop((_unread, asking));
    let ended = tokio::time::timeout(Duration::from_secs(60), serving).await;
    assert!(ended.is_ok(), "it is given up");
}

fn log(bytes: usize) -> NodeEvent {
    NodeEvent::Log {
        sandbox: SandboxId::random(),
        team: "0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162".parse().unwrap(),
        since: Timestamp::UNIX_EPOCH,
        at: Timestamp::UNIX_EPOCH,
        lines: "x".repeat(bytes),
    }
}

/// How many of so many events reach a watcher that begins to read when all were sent.
async fn reach(count: usize, bytes: usize) -> usize {
    let (ours, theirs) = scm::pair().unwrap();
    let node = Arc::new(SmallNode::default());
    let served: Arc<dyn NodePort> = Arc::clone(&node) as _;
    tokio::spawn(async move { server::serve(theirs, served).await });
    let client = NodeClient::connect(ours).await.unwrap();
    let mut events = client.observe().await.unwrap();
    let observer = node.observers.lock().unwrap().pop().unwrap();
    for _ in 0..count {
        observer.send(log(bytes)).await.unwrap();
    }
    // Sent in order: an answer comes behind all of them.
    drop(observer);
    client.info().await.ok();
    drop(node);
    let mut reached = 0;
    let reading = async {
        while reached < count && events.recv().await.is_some() {
            reached += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading)
        .await
        .expect("an end of it");
    reached
}

#[tokio::test]
async fn a_watcher_that_is_bytes_behind_loses_its_watch() {
    assert_eq!(reach(2000, 100).await, 2000);
    let reached = reach(100, 700_000).await;
    assert!((30..60).contains(&reached), "{reached}");
}

#[tokio::test]
async fn a_moment_that_no_clock_shows_ends_the_connection() {
    let (ours, theirs) = scm::pair().unwrap();
    let node = Arc::new(SmallNode::default());
    let served: Arc<dyn NodePort> = Arc::clone(&node) as _;
    tokio::spawn(async move { server::serve(theirs, served).await });
    let client = NodeClient::connect(ours).await.unwrap();
    let mut events = client.observe().await.unwrap();
    let observer = node.observers.lock().unwrap().pop().unwrap();
    let ended = |at| NodeEvent::Ended {
        sandbox: SandboxId::random(),
        reason: casemate_types::EndReason::Killed,
        at,
    };
    observer.send(ended(Timestamp::UNIX_EPOCH)).await.unwrap();
    observer.send(ended(Timestamp::MAX)).await.unwrap();
    assert!(events.recv().await.is_some());
    assert!(events.recv().await.is_none());
    client.closed().await;
}
