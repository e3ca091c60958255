//! What one peer can have the node do at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use casemate_rpc::{NodePort, Peer};
use casemate_types::SandboxId;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::SmallNode;
use super::far::world_of;

/// More than an edge may have carried out at once, and that.
const ASKED: usize = 1500;
const AT_ONCE: usize = 1024;

#[tokio::test]
async fn what_an_edge_asks_beyond_its_bound_waits_for_what_it_asked_before() {
    let held = Arc::new(Semaphore::new(0));
    let node = SmallNode {
        held: Some(Arc::clone(&held)),
        ..SmallNode::default()
    };
    let world = Arc::new(world_of(node, Peer::Edge).await);
    let mut asked = JoinSet::new();
    for _ in 0..ASKED {
        let world = Arc::clone(&world);
        asked.spawn(async move { world.far.locate(&SandboxId::random()).await });
    }
    let under_way = || world.node.locating.load(Ordering::SeqCst);
    let begun = Instant::now();
    while under_way() < AT_ONCE {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", under_way());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Time in which more would begin.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(under_way(), AT_ONCE);
    held.add_permits(ASKED);
    while let Some(answer) = asked.join_next().await {
        assert_eq!(answer.unwrap(), Ok(None));
    }
}
