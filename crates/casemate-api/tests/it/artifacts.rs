//! Nodes that have from a bucket what others made.

use std::sync::Arc;

use casemate_artifacts::ArtifactsConfig;
use casemate_control::nodes::NodeLink;
use casemate_control::testing::{FakeBucket, FakeNode};
use casemate_store::Artifacts as _;
use casemate_types::{Portable, SandboxId};
use serde_json::Value;

use crate::several_nodes::{all_connected, node_of};
use crate::world::{World, until};

/// The world's own node and others, each with a carrier if there is a bucket.
async fn cluster(bucket: Option<&FakeBucket>, names: &[&str]) -> (World, Vec<FakeNode>) {
    nodes_of(World::new().await, bucket, names).await
}

async fn nodes_of(
    world: World,
    bucket: Option<&FakeBucket>,
    names: &[&str],
) -> (World, Vec<FakeNode>) {
    world.control.remove_node(&world.node.name());
    let mut nodes = vec![world.node.clone()];
    nodes.extend(names.iter().map(|name| world.node.beside(name)));
    for node in &nodes {
        if node.name() != world.node.name() {
            node.start_clock();
        }
        let link = NodeLink {
            port: Arc::new(node.clone()),
            carrier: bucket.map(|bucket| bucket.carrier(node)),
        };
        world.control.add_node(&node.name(), link);
    }
    all_connected(&world, nodes.len()).await;
    (world, nodes)
}

/// A snapshot of a new sandbox: its name, and where it was made.
async fn snapshot<'a>(world: &World, nodes: &'a [FakeNode]) -> (String, &'a FakeNode) {
    let sandbox = world.create("").await;
    let node = node_of(nodes, &sandbox);
    let path = format!("/sandboxes/{sandbox}/snapshots");
    let answer = world.api("POST", &path).json("{}").send().await;
    let made: Value = answer.json();
    (made["snapshotID"].as_str().unwrap().to_owned(), node)
}

async fn create_of(world: &World, template: &str) -> SandboxId {
    let body = format!(r#"{{"templateID":"{template}"}}"#);
    let answer = world.api("POST", "/v2/sandboxes").json(&body).send().await;
    assert_eq!(answer.status, 201);
    answer.json()["sandboxID"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// The row by which it is fetched comes after it.
async fn is_stored(world: &World, bucket: &FakeBucket, count: usize) {
    let (store, team) = (world.store.share(), world.team.clone());
    until("it is in the bucket", || async {
        let rows = store.artifact_references(&team).await.unwrap();
        bucket.stored().len() == count && rows.len() == count
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_begins_sandboxes_at_a_node_that_has_to_fetch_it() {
    let bucket = FakeBucket::default();
    let (world, nodes) = cluster(Some(&bucket), &["second"]).await;
    let (template, made_at) = snapshot(&world, &nodes).await;
    is_stored(&world, &bucket, 1).await;
    assert!(matches!(bucket.stored()[..], [Portable::Snapshot(_)]));
    made_at.fail_creates(crate::several_nodes::full());
    for _ in 0..3 {
        let sandbox = create_of(&world, &template).await;
        assert_ne!(node_of(&nodes, &sandbox).name(), made_at.name());
    }
    assert_eq!(bucket.fetches(), 1, "it is there from then on");
    // What two nodes have is stored once.
    is_stored(&world, &bucket, 1).await;
}

#[tokio::test]
async fn what_cannot_be_fetched_is_made_where_it_is() {
    let bucket = FakeBucket::default();
    let (world, nodes) = cluster(Some(&bucket), &["second", "third"]).await;
    let (template, made_at) = snapshot(&world, &nodes).await;
    is_stored(&world, &bucket, 1).await;
    bucket.is_away(true);
    for _ in 0..10 {
        let sandbox = create_of(&world, &template).await;
        assert_eq!(node_of(&nodes, &sandbox).name(), made_at.name());
    }
    made_at.fail_creates(crate::several_nodes::full());
    let body = format!(r#"{{"templateID":"{template}"}}"#);
    let refused = world.api("POST", "/v2/sandboxes").json(&body).send().await;
    assert_eq!(refused.status, 503);
    bucket.is_away(false);
    create_of(&world, &template).await;
}

#[tokio::test]
async fn what_is_stored_once_the_bucket_is_back_was_due_all_the_time() {
    let bucket = FakeBucket::default();
    bucket.is_away(true);
    let (world, nodes) = cluster(Some(&bucket), &["second"]).await;
    snapshot(&world, &nodes).await;
    assert_eq!(bucket.stored(), []);
    bucket.is_away(false);
    // The next snapshot makes control look again.
    snapshot(&world, &nodes).await;
    is_stored(&world, &bucket, 2).await;
}

/// More nodes than a create asks.
#[tokio::test]
async fn without_a_bucket_the_one_node_that_has_it_is_found() {
    let names: Vec<String> = (0..11).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (world, nodes) = cluster(None, &names).await;
    let (template, made_at) = snapshot(&world, &nodes).await;
    for _ in 0..20 {
        let sandbox = create_of(&world, &template).await;
        assert_eq!(node_of(&nodes, &sandbox).name(), made_at.name());
    }
}

#[tokio::test]
async fn what_no_template_needs_any_more_is_forgotten() {
    let bucket = FakeBucket::default();
    let swept = casemate_artifacts::Artifacts::in_memory(&ArtifactsConfig::default()).unwrap();
    let in_config = swept.clone();
    let world = World::with(|config| config.bucket = Some(in_config)).await;
    let (mut world, nodes) = nodes_of(world, Some(&bucket), &["second"]).await;
    let (gone, _) = snapshot(&world, &nodes).await;
    snapshot(&world, &nodes).await;
    let rows = |world: &World| {
        let (store, team) = (world.store.share(), world.team.clone());
        async move { store.artifact_references(&team).await.unwrap() }
    };
    until("both are noted", || async { rows(&world).await.len() == 2 }).await;
    let path = format!("/templates/{}", gone.split(':').next().unwrap());
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
    // The janitor comes by at each start.
    world
        .restart_with(|config| config.bucket = Some(swept))
        .await;
    until("one is left", || async { rows(&world).await.len() == 1 }).await;
    assert_eq!(world.store.artifact_unneeded(10).await.unwrap(), []);
}

/// Placement believes that they are there; that costs a fetch, and no create.
#[tokio::test]
async fn what_nodes_evicted_comes_back_with_the_next_create() {
    let bucket = FakeBucket::default();
    let (world, nodes) = cluster(Some(&bucket), &["second"]).await;
    let (template, _) = snapshot(&world, &nodes).await;
    is_stored(&world, &bucket, 1).await;
    let stored = bucket.stored();
    for round in 1..4 {
        let told = || async {
            // A node says that it has something new, or that something is gone.
            nodes
                .iter()
                .any(|node| stored.iter().all(|what| node.in_bucket().contains(what)))
        };
        until("a node may evict it", told).await;
        nodes.iter().for_each(FakeNode::evict);
        create_of(&world, &template).await;
        assert!(bucket.fetches() >= round, "{round}");
    }
    let unstored = nodes.iter().flat_map(FakeNode::in_bucket);
    let unstored: Vec<_> = unstored.filter(|what| !stored.contains(what)).collect();
    assert_eq!(unstored, [], "nothing else may go");
}
