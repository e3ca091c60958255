//! Several nodes behind one API server.

use std::sync::Arc;

use casemate_control::testing::FakeNode;
use casemate_rpc::NodeError;
use casemate_types::SandboxId;

use crate::world::{World, until};

/// The world's own node and two more.
async fn three() -> (World, [FakeNode; 3]) {
    let world = World::new().await;
    let nodes = [
        world.node.clone(),
        world.node.beside("second"),
        world.node.beside("third"),
    ];
    for node in &nodes[1..] {
        node.start_clock();
        let port = Arc::new(node.clone());
        world.control.add_node(&node.name(), port);
    }
    all_connected(&world, 3).await;
    (world, nodes)
}

pub(crate) async fn all_connected(world: &World, nodes: usize) {
    until("all nodes are connected", || async {
        let listed = world.admin("GET", "/nodes").send().await.json();
        let ready = |node: &serde_json::Value| node["status"] == "ready";
        listed
            .as_array()
            .unwrap()
            .iter()
            .filter(|n| ready(n))
            .count()
            == nodes
    })
    .await;
}

pub(crate) fn full() -> Option<NodeError> {
    Some(NodeError::Full {
        what: "as many sandboxes as it may have".into(),
    })
}

/// Which of them has it.
pub(crate) fn node_of<'a>(nodes: &'a [FakeNode], sandbox: &SandboxId) -> &'a FakeNode {
    let mut having = nodes.iter().filter(|node| node.running().contains(sandbox));
    let node = having.next().expect("some node has it");
    assert!(having.next().is_none(), "one node has it");
    node
}

#[tokio::test]
async fn sandboxes_are_spread_and_each_change_reaches_its_node() {
    let (world, nodes) = three().await;
    let mut made = Vec::new();
    for _ in 0..60 {
        made.push(world.create("").await);
    }
    for node in &nodes {
        let here = node.running().len();
        assert!((8..=32).contains(&here), "{} has {here} of 60", node.name());
    }
    for sandbox in &made[..10] {
        let node = node_of(&nodes, sandbox);
        let path = format!("/sandboxes/{sandbox}/timeout");
        let before = node.ends_at(sandbox).unwrap();
        let set = world.api("POST", &path).json(r#"{"timeout":3000}"#).send();
        assert_eq!(set.await.status, 204);
        assert!(node.ends_at(sandbox).unwrap() > before);
        let path = format!("/sandboxes/{sandbox}/pause");
        assert_eq!(world.api("POST", &path).send().await.status, 204);
        assert!(node.kept(sandbox).is_some());
        let path = format!("/sandboxes/{sandbox}/connect");
        let connected = world.api("POST", &path).json(r#"{"timeout":60}"#).send();
        assert_eq!(connected.await.status, 201);
        assert!(node.kept(sandbox).is_none());
    }
    for sandbox in &made {
        let path = format!("/sandboxes/{sandbox}");
        assert_eq!(world.api("DELETE", &path).send().await.status, 204);
    }
    for node in &nodes {
        assert_eq!(node.running(), []);
    }
}

#[tokio::test]
async fn a_full_node_is_no_reason_while_another_has_room() {
    let (world, nodes) = three().await;
    nodes[0].fail_creates(full());
    nodes[1].fail_creates(full());
    for _ in 0..10 {
        let sandbox = world.create("").await;
        assert_eq!(node_of(&nodes, &sandbox).name(), "third");
    }
    nodes[2].fail_creates(full());
    let refused = world.try_create("").await;
    refused.error_code(503, "sandbox_capacity_unavailable");
    let running: usize = nodes.iter().map(|node| node.running().len()).sum();
    assert_eq!((running, world.listed().await.len()), (10, 10));
}

#[tokio::test]
async fn nodes_that_say_that_they_are_full_are_asked_last() {
    let (world, nodes) = three().await;
    for node in &nodes[..2] {
        node.bound_sandboxes(0);
    }
    until("it is known", || async {
        let creates = nodes.iter().map(FakeNode::creates).collect::<Vec<_>>();
        world.create("").await;
        nodes[2].creates() > creates[2]
            && nodes[0].creates() == creates[0]
            && nodes[1].creates() == creates[1]
    })
    .await;
    let before = nodes[0].creates() + nodes[1].creates();
    for _ in 0..20 {
        world.create("").await;
    }
    assert_eq!(nodes[0].creates() + nodes[1].creates(), before);
}

#[tokio::test]
async fn a_node_that_goes_while_it_makes_one_costs_the_client_nothing() {
    let (world, nodes) = three().await;
    let [lost, others @ ..] = &nodes;
    for node in others {
        node.bound_sandboxes(0);
    }
    let creates = || others.iter().map(FakeNode::creates).sum::<usize>();
    // Until the first one alone is asked.
    until("it is known", || async {
        let before = creates();
        world.create("").await;
        creates() == before
    })
    .await;
    lost.hold_creates();
    let before = world.listed().await.len();
    let creating = async { world.try_create("").await };
    let breaking = async {
        let held = lost.creates();
        until("it is asked", || async { lost.creates() > held }).await;
        for node in others {
            node.bound_sandboxes(1000);
        }
        lost.disconnect();
        lost.release_creates();
    };
    let (answer, ()) = tokio::join!(creating, breaking);
    assert_eq!(answer.status, 201, "{}", answer.text);
    let sandbox = SandboxId::parse(answer.json()["sandboxID"].as_str().unwrap()).unwrap();
    assert!(others.iter().any(|node| node.running().contains(&sandbox)));
    assert_eq!(world.listed().await.len(), before + 1);
    // What it made all the same is told to nobody, and goes once it is back.
    let known = world.listed().await;
    lost.reconnect();
    until("the other one is gone", || async {
        let running = lost.running();
        running.iter().all(|id| known.contains(&id.to_string()))
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_away_keeps_its_sandboxes_and_its_clients_are_told_to_try_again() {
    let (world, nodes) = three().await;
    let mut made = Vec::new();
    for _ in 0..30 {
        made.push(world.create("").await);
    }
    let away = &nodes[1];
    let theirs = away.running();
    assert!(!theirs.is_empty());
    away.disconnect();
    all_connected(&world, 2).await;
    assert_eq!(world.listed().await.len(), 30);
    for sandbox in &theirs {
        assert_eq!(world.status_of(sandbox).await, 200);
        let path = format!("/sandboxes/{sandbox}");
        let refused = world.api("DELETE", &path).send().await;
        refused.error_code(503, "sandbox_node_unreachable");
    }
    // Whoever asks for new ones notices nothing.
    for _ in 0..10 {
        let sandbox = world.create("").await;
        assert!(!away.running().contains(&sandbox));
    }
    away.reconnect();
    all_connected(&world, 3).await;
    assert_eq!(away.running(), theirs);
    for sandbox in &theirs {
        let path = format!("/sandboxes/{sandbox}");
        assert_eq!(world.api("DELETE", &path).send().await.status, 204);
    }
    assert_eq!(away.running(), []);
}

#[tokio::test]
async fn a_node_that_is_taken_out_gets_nothing_more() {
    let (world, nodes) = three().await;
    world.control.remove_node("second");
    world.control.remove_node("nobody");
    all_connected(&world, 2).await;
    let before = nodes[1].creates();
    for _ in 0..20 {
        world.create("").await;
    }
    assert_eq!(nodes[1].creates(), before);
}

#[tokio::test]
async fn one_that_answers_in_another_s_place_is_not_believed() {
    let world = World::new().await;
    let impostor = world.node.beside("impostor");
    world.control.add_node("second", Arc::new(impostor.clone()));
    for _ in 0..10 {
        world.create("").await;
    }
    assert_eq!(impostor.creates(), 0);
    assert_eq!(
        world
            .admin("GET", "/nodes")
            .send()
            .await
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
}
