//! A node that is drained: it gets nothing new, and what it has leaves.

mod at_once;

use std::sync::Arc;
use std::time::Duration;

use casemate_artifacts::{Artifacts, ArtifactsConfig};
use casemate_control::nodes::NodeLink;
use casemate_control::testing::{FakeBucket, FakeNode};
use casemate_types::{Kept, SandboxId};
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::world::{Answer, until};

const WITH_MEMORY: &str = "{}";
const FILES_ONLY: &str = r#"{"memory":false}"#;

/// Two servers, two nodes, a bucket in which nothing is stored by itself for an hour.
struct Drained {
    cluster: Cluster,
    stays: FakeNode,
    leaves: FakeNode,
}

impl Drained {
    async fn new() -> Self {
        let made = Self::with_silent_agents().await;
        made.leaves.serve_agents();
        made
    }

    /// At the node that is to leave.
    async fn with_silent_agents() -> Self {
        let swept = Artifacts::in_memory(&ArtifactsConfig::default()).unwrap();
        let cluster = Cluster::with(|config| {
            config.bucket = Some(swept.clone());
            config.paused_stored_after = Some(Duration::from_secs(3600));
        });
        let mut cluster = cluster.await;
        let (stays, leaves) = (cluster.node.clone(), cluster.node.beside("second"));
        stays.serve_agents();
        for control in &cluster.controls {
            control.remove_node(&stays.name());
        }
        let bucket = FakeBucket::default();
        let link = move |node: &FakeNode| NodeLink {
            port: Arc::new(node.clone()),
            carrier: Some(bucket.carrier(node)),
        };
        cluster.join_by(std::slice::from_ref(&leaves), link).await;
        Self {
            cluster,
            stays,
            leaves,
        }
    }

    /// One that runs at the node that is to leave.
    async fn made(&self) -> SandboxId {
        for _ in 0..200 {
            let id = self.cluster.create(0).await;
            if self.leaves.running().contains(&id) {
                return id;
            }
            let kill = self.sandbox("DELETE", &id, "", "").await;
            assert_eq!(kill.status, 204, "{}", kill.text);
        }
        panic!("the node gets none");
    }

    async fn paused(&self, how: &str) -> SandboxId {
        let id = self.made().await;
        self.pause(&id, how).await;
        id
    }

    async fn pause(&self, id: &SandboxId, how: &str) {
        let paused = self.sandbox("POST", id, "/pause", how).await;
        assert_eq!(paused.status, 204, "{}", paused.text);
    }

    async fn sandbox(&self, method: &str, id: &SandboxId, verb: &str, body: &str) -> Answer {
        let call = self
            .cluster
            .api(0, method, &format!("/sandboxes/{id}{verb}"));
        match body {
            "" => call.send().await,
            body => call.json(body).send().await,
        }
    }

    /// Where it goes on, by either server.
    async fn goes_on(&self, id: &SandboxId, node: &FakeNode) {
        for server in [1, 0] {
            let path = format!("/sandboxes/{id}/connect");
            let call = self.cluster.api(server, "POST", &path);
            let went = call.json(r#"{"timeout":600}"#).send().await;
            assert!([200, 201].contains(&went.status.as_u16()), "{}", went.text);
        }
        let row = self.cluster.store.sandbox_by_id(id).await.unwrap().unwrap();
        assert_eq!(row.node, node.name());
        until("it is there alone", || async {
            let here = |one: &FakeNode| one.running().contains(id);
            here(&self.stays) != here(&self.leaves) && here(node)
        })
        .await;
    }

    async fn change(&self, verb: &str, body: &str) -> Answer {
        let path = format!("/admin/cluster/nodes/{}/{verb}", self.leaves.name());
        self.cluster.admin(0, "POST", &path).json(body).send().await
    }

    async fn drain(&self, pause: bool) -> Value {
        let body = json!({ "pause": pause }).to_string();
        let drained = self.change("drain", &body).await;
        assert_eq!(drained.status, 200, "{}", drained.text);
        for server in 0..2 {
            self.heard(server, "draining").await;
        }
        drained.json()
    }

    async fn heard(&self, server: usize, status: &str) {
        until("the server has heard of it", || async {
            let path = format!("/nodes/{}", self.leaves.name());
            let shown = self.cluster.admin(server, "GET", &path).send().await;
            shown.status == 200 && shown.json()["status"] == status
        })
        .await;
    }

    async fn listed(&self) -> Value {
        let listed = self.cluster.admin(1, "GET", "/admin/cluster/nodes").send();
        let listed = listed.await.json();
        let mut nodes = listed.as_array().unwrap().iter();
        let found = nodes.find(|node| node["nodeID"] == self.leaves.name().as_str());
        found.unwrap().clone()
    }

    async fn left(&self, running: u64, paused: u64) {
        let wanted = json!({"running": running, "paused": paused, "unstored": 0, "artifacts": 0});
        until("all is stored that is to be", || async {
            self.listed().await["left"] == wanted
        })
        .await;
    }

    async fn remove(&self) -> Answer {
        let path = format!("/admin/cluster/nodes/{}", self.leaves.name());
        self.cluster.admin(1, "DELETE", &path).send().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_gets_nothing_new_and_what_is_paused_is_stored_at_once() {
    let world = Drained::new().await;
    let running = world.made().await;
    let files = world.paused(FILES_ONLY).await;
    let memory = world.paused(WITH_MEMORY).await;
    assert_eq!(world.listed().await.get("left"), None);
    let refused = world.remove().await;
    refused.error_code(409, "node_in_use");

    let drained = world.drain(false).await;
    assert_eq!(
        (&drained["hasBucket"], &drained["others"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(world.listed().await["standing"], "draining");
    let before = world.leaves.creates();
    for server in [0, 1].repeat(10) {
        let made = world.cluster.create(server).await;
        assert!(world.stays.running().contains(&made));
    }
    assert_eq!(world.leaves.creates(), before);
    let fork = world.sandbox("POST", &running, "/fork", "{}").await;
    fork.error_code(503, "sandbox_capacity_unavailable");
    world.left(1, 2).await;
    world.goes_on(&files, &world.stays).await;
    world.goes_on(&memory, &world.leaves).await;
    assert_eq!(world.leaves.began_with(&memory), None);
    let refused = world.remove().await;
    refused.error_code(409, "node_in_use");

    // Its processes are with it until its machine goes; then its files are not.
    world.pause(&memory, WITH_MEMORY).await;
    assert_eq!(world.leaves.kept(&memory), Some(Kept::Memory));
    let kill = world.sandbox("DELETE", &running, "", "").await;
    assert_eq!(kill.status, 204);
    world.left(0, 1).await;
    let removed = world.remove().await;
    assert_eq!(removed.status, 200, "{}", removed.text);
    assert_eq!(removed.json(), json!({"running": 0, "paused": 0}));
    until("the servers have heard of it", || async {
        let path = format!("/sandboxes/{memory}/connect");
        let call = world.cluster.api(0, "POST", &path);
        call.json(r#"{"timeout":600}"#).send().await.status == 201
    })
    .await;
    assert!(world.stays.running().contains(&memory));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_there_is_paused_and_what_cannot_be_is_named() {
    let world = Drained::with_silent_agents().await;
    let made = [world.made().await, world.made().await, world.made().await];
    let drained = world.drain(true).await;
    let named = drained["notPaused"].as_array().unwrap();
    assert_eq!(named.len(), made.len(), "{drained}");
    assert_eq!(drained["left"]["running"], 3);
    // Once more, when they are well.
    world.leaves.serve_agents();
    let drained = world.drain(true).await;
    assert_eq!(drained["notPaused"], json!([]));
    assert_eq!(drained["left"]["running"], 0);
    world.left(0, 3).await;
    for id in &made[..2] {
        assert_eq!(world.leaves.kept(id), Some(Kept::Files));
        world.goes_on(id, &world.stays).await;
    }
    world.left(0, 1).await;
    assert_eq!(world.remove().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_other_node_takes_it_it_goes_on_there() {
    let world = Drained::new().await;
    let files = world.paused(FILES_ONLY).await;
    world.drain(false).await;
    world.left(0, 1).await;
    world.stays.fail_creates(crate::several_nodes::full());
    world.goes_on(&files, &world.leaves).await;
    world.pause(&files, FILES_ONLY).await;
    world.stays.fail_creates(None);
    world.goes_on(&files, &world.stays).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_taken_back_and_refused_where_nothing_can_leave() {
    let world = Drained::new().await;
    let set = |standing: &str| json!({ "standing": standing }).to_string();
    for (standing, status) in [("open", "ready"), ("cordoned", "ready")] {
        world.drain(false).await;
        let changed = world.change("standing", &set(standing)).await;
        assert_eq!(changed.status, 204, "{}", changed.text);
        assert_eq!(world.listed().await["standing"], standing);
        for server in 0..2 {
            world.heard(server, status).await;
        }
    }
    world.drain(false).await;
    // As E2B's administrators say it.
    let path = format!("/nodes/{}", world.leaves.name());
    let say = async |status: &str| {
        let body = json!({ "status": status }).to_string();
        let call = world.cluster.admin(1, "POST", &path).json(&body);
        call.send().await.status.as_u16()
    };
    assert_eq!(say("ready").await, 204);
    assert_eq!(world.listed().await["standing"], "open");
    world.heard(0, "ready").await;
    world.made().await;
    assert_eq!(say("draining").await, 204);
    assert_eq!(world.listed().await["standing"], "draining");
    assert_eq!(say("unhealthy").await, 409);

    let unknown = world
        .cluster
        .admin(0, "POST", "/admin/cluster/nodes/third/drain");
    assert_eq!(unknown.json("{}").send().await.status, 404);
    let name = world.leaves.name();
    let node = world.cluster.store.node_by_id(&name).await.unwrap();
    let generation = node.unwrap().generation;
    let fenced = world.cluster.store.node_fence(&name, generation).await;
    fenced.unwrap();
    let refused = world.change("drain", "{}").await;
    refused.error_code(409, "node_lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_bucket_nothing_is_paused() {
    let mut cluster = Cluster::new().await;
    let second = cluster.node.beside("second");
    cluster.join(std::slice::from_ref(&second)).await;
    let made = super::lost::create_at(&cluster, &second, super::lost::BASE).await;
    let call = cluster.api(0, "POST", &format!("/sandboxes/{made}/snapshots"));
    let snapshot = call.json("{}").send().await;
    assert_eq!(snapshot.status, 201, "{}", snapshot.text);
    let path = "/admin/cluster/nodes/second/drain";
    let refused = cluster.admin(0, "POST", path).json(r#"{"pause":true}"#);
    refused.send().await.error_code(409, "no_bucket");
    let drained = cluster.admin(0, "POST", path).json("{}").send().await;
    assert_eq!(drained.status, 200, "{}", drained.text);
    assert_eq!(drained.json()["hasBucket"], false);
    // Nor does anything begin there of what only it has.
    for server in 0..2 {
        until("the server has heard of it", || async {
            let shown = cluster.admin(server, "GET", "/nodes/second").send().await;
            shown.json()["status"] == "draining"
        })
        .await;
    }
    let before = second.creates();
    let body = json!({"templateID": snapshot.json()["snapshotID"], "timeout": 60}).to_string();
    for server in 0..2 {
        let call = cluster.api(server, "POST", "/v2/sandboxes").json(&body);
        let refused = call.send().await;
        assert!(refused.status.is_server_error(), "{}", refused.text);
    }
    assert_eq!(second.creates(), before);
}
