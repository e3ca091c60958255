//! Paused sandboxes whose node is lost, or has no room: they go on at another one.

use std::sync::Arc;
use std::time::Duration;

use casemate_artifacts::{Artifacts, ArtifactsConfig};
use casemate_catalog::Catalog;
use casemate_control::nodes::NodeLink;
use casemate_control::testing::{FakeBucket, FakeNode};
use casemate_control::{ControlConfig, Shared, Sharing};
use casemate_store::{Sandbox, Store};
use casemate_types::{Portable, SandboxId, SandboxState, SnapshotId};

use super::cluster::{Cluster, TIMES};
use crate::several_nodes::{full, node_of};
use crate::world::{Answer, until};

const AT_ONCE: Duration = Duration::from_millis(1);
const NOT_NOW: Duration = Duration::from_secs(3600);
const WITH_MEMORY: &str = "{}";
const FILES_ONLY: &str = r#"{"memory":false}"#;

/// Two servers, two nodes and a bucket.
pub(super) struct Apart {
    pub(super) cluster: Cluster,
    bucket: FakeBucket,
    nodes: [FakeNode; 2],
}

/// With a bucket.
fn config(
    stored_after: Duration,
    change: impl Fn(&mut ControlConfig),
) -> impl Fn(&mut ControlConfig) {
    let swept = Artifacts::in_memory(&ArtifactsConfig::default()).unwrap();
    move |config| {
        config.bucket = Some(swept.clone());
        config.paused_stored_after = Some(stored_after);
        change(config);
    }
}

impl Apart {
    async fn new(stored_after: Duration) -> Self {
        Self::with(stored_after, |_| {}).await
    }

    async fn with(stored_after: Duration, change: impl Fn(&mut ControlConfig)) -> Self {
        Self::of(Cluster::with(config(stored_after, change)).await).await
    }

    pub(super) async fn over(stores: [Arc<dyn Store>; 2]) -> Self {
        Self::of(Cluster::over(stores, config(AT_ONCE, |_| {})).await).await
    }

    async fn of(cluster: Cluster) -> Self {
        let nodes = [cluster.node.clone(), cluster.node.beside("second")];
        nodes[1].start_clock();
        let bucket = FakeBucket::default();
        let apart = Self {
            cluster,
            bucket,
            nodes,
        };
        for node in &apart.nodes {
            node.serve_agents();
            apart.lose(node);
            apart.give(node);
        }
        apart.connected(0, 2).await;
        apart.connected(1, 2).await;
        apart
    }

    pub(super) fn nodes(&self) -> &[FakeNode; 2] {
        &self.nodes
    }

    /// No server knows it any more: a node that is in no list is lost.
    pub(super) fn lose(&self, node: &FakeNode) {
        for control in &self.cluster.controls {
            control.remove_node(&node.name());
        }
    }

    pub(super) fn give(&self, node: &FakeNode) {
        for control in &self.cluster.controls {
            let link = NodeLink {
                port: Arc::new(node.clone()),
                carrier: Some(self.bucket.carrier(node)),
            };
            control.add_node(&node.name(), link);
        }
    }

    async fn connected(&self, server: usize, nodes: usize) {
        until("all nodes are connected", || async {
            let listed = self.cluster.admin(server, "GET", "/nodes").send().await;
            let listed = listed.json();
            let mut ready = listed.as_array().unwrap().iter();
            ready.by_ref().filter(|n| n["status"] == "ready").count() == nodes
        })
        .await;
    }

    /// A paused one whose files are stored, where it was, which is lost, and the other node.
    pub(super) async fn lost(&self) -> (SandboxId, &FakeNode, &FakeNode) {
        self.connected(0, 2).await;
        self.connected(1, 2).await;
        let (sandbox, home, other) = self.paused(WITH_MEMORY).await;
        self.stored(&sandbox, None).await;
        self.lose(home);
        (sandbox, home, other)
    }

    /// A paused one, where it is, and the other node.
    async fn paused(&self, how: &str) -> (SandboxId, &FakeNode, &FakeNode) {
        let sandbox = self.cluster.create(0).await;
        self.pause(&sandbox, how).await;
        let home = node_of(&self.nodes, &sandbox);
        let other = &self.nodes[usize::from(home.name() == self.nodes[0].name())];
        (sandbox, home, other)
    }

    async fn pause(&self, sandbox: &SandboxId, how: &str) {
        let path = format!("/sandboxes/{sandbox}/pause");
        let paused = self.cluster.api(0, "POST", &path).json(how).send().await;
        assert_eq!(paused.status, 204, "{}", paused.text);
    }

    pub(super) async fn connect(&self, server: usize, sandbox: &SandboxId) -> Answer {
        let path = format!("/sandboxes/{sandbox}/connect");
        let call = self.cluster.api(server, "POST", &path);
        call.json(r#"{"timeout":60}"#).send().await
    }

    pub(super) async fn kill(&self, sandbox: &SandboxId) {
        let kill = self
            .cluster
            .api(0, "DELETE", &format!("/sandboxes/{sandbox}"));
        assert_eq!(kill.send().await.status, 204);
    }

    pub(super) async fn row(&self, sandbox: &SandboxId) -> Sandbox {
        let row = self.cluster.store.sandbox_by_id(sandbox).await.unwrap();
        row.unwrap()
    }

    /// What is stored of its pause, once it is; other than that.
    async fn stored(&self, sandbox: &SandboxId, but: Option<&SnapshotId>) -> SnapshotId {
        until("its files are stored", || async {
            let stored = self.row(sandbox).await.stored_files;
            stored.is_some() && stored.as_ref() != but
        })
        .await;
        let files = self.row(sandbox).await.stored_files.unwrap();
        let stored = self.bucket.stored();
        assert!(stored.contains(&Portable::Snapshot(files.clone())));
        files
    }

    /// It runs there, as every place says, and nowhere else before long.
    pub(super) async fn runs_at(&self, sandbox: &SandboxId, node: &FakeNode) {
        let row = self.row(sandbox).await;
        assert!(matches!(row.state, SandboxState::Running { .. }), "{row:?}");
        assert_eq!((row.node, row.stored_files), (node.name(), None));
        assert_eq!(node.kept(sandbox), None);
        let route = self.cluster.catalog.route_by_id(sandbox).await.unwrap();
        let route = route.unwrap();
        assert_eq!((route.node, route.asleep), (node.name(), false));
        assert!(route.generation <= row.generation);
        until("it is there alone", || async {
            let mut all = self.nodes.iter();
            all.all(|one| one.running().contains(sandbox) == (one.name() == node.name()))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_node_is_lost_goes_on_from_what_was_stored() {
    let apart = Apart::new(AT_ONCE).await;
    for how in [WITH_MEMORY, FILES_ONLY] {
        let (sandbox, home, other) = apart.paused(how).await;
        let files = apart.stored(&sandbox, None).await;
        until("no copy is left of its files", || async {
            home.snapshot_ids().iter().all(SnapshotId::is_of_pause)
        })
        .await;
        let token = home.access_token(&sandbox);
        apart.lose(home);
        let resumed = apart.connect(1, &sandbox).await;
        assert_eq!(resumed.status, 201, "{}", resumed.text);
        assert_eq!(other.began_with(&sandbox), Some(files.clone()));
        assert!(token.is_some());
        assert_eq!(other.access_token(&sandbox), token);
        until("what was fetched for it is gone", || async {
            !other.snapshot_ids().contains(&files)
        })
        .await;
        // What it was comes back, and goes: nobody takes it for what it is now.
        assert!(home.running().contains(&sandbox));
        apart.give(home);
        apart.runs_at(&sandbox, other).await;
        // From then on it is at home there.
        apart.pause(&sandbox, how).await;
        let again = apart.connect(0, &sandbox).await;
        assert_eq!(again.status, 201, "{}", again.text);
        apart.runs_at(&sandbox, other).await;
        apart.kill(&sandbox).await;
        until("both are back", || async {
            apart.nodes.iter().all(|node| node.running().is_empty())
        })
        .await;
        apart.connected(0, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_stored_waits_for_its_node() {
    let apart = Apart::new(NOT_NOW).await;
    let (sandbox, home, _) = apart.paused(WITH_MEMORY).await;
    apart.lose(home);
    for server in 0..2 {
        let refused = apart.connect(server, &sandbox).await;
        refused.error_code(503, "sandbox_node_lost");
    }
    apart.give(home);
    until("it goes on", || async {
        [200, 201].contains(&apart.connect(0, &sandbox).await.status.as_u16())
    })
    .await;
    apart.runs_at(&sandbox, home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_of_a_former_pause_is_never_used() {
    let apart = Apart::new(AT_ONCE).await;
    let (sandbox, home, other) = apart.paused(WITH_MEMORY).await;
    let former = apart.stored(&sandbox, None).await;
    apart.bucket.is_away(true);
    assert_eq!(apart.connect(0, &sandbox).await.status, 201);
    assert_eq!(apart.row(&sandbox).await.stored_files, None);
    apart.pause(&sandbox, FILES_ONLY).await;
    apart.lose(home);
    let refused = apart.connect(0, &sandbox).await;
    refused.error_code(503, "sandbox_node_lost");
    assert!(!other.running().contains(&sandbox));
    let unneeded = apart.cluster.store.artifact_unneeded(100).await.unwrap();
    let mut unneeded = unneeded.into_iter().map(|one| one.what);
    assert!(unneeded.any(|what| what == Portable::Snapshot(former.clone())));

    // Nor of one before a run that nobody wrote down.
    apart.bucket.is_away(false);
    apart.give(home);
    let second = apart.stored(&sandbox, Some(&former)).await;
    home.resume_unheard(&sandbox);
    home.pause_by_deadline(&sandbox);
    let third = apart.stored(&sandbox, Some(&second)).await;
    apart.lose(home);
    assert_eq!(apart.connect(1, &sandbox).await.status, 201);
    assert_eq!(other.began_with(&sandbox), Some(third));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_node_is_full_leaves_it_with_its_files_and_stays_with_its_memory() {
    let apart = Apart::new(NOT_NOW).await;
    let (sandbox, home, other) = apart.paused(WITH_MEMORY).await;
    home.fail_creates(full());
    let refused = apart.connect(0, &sandbox).await;
    refused.error_code(503, "sandbox_capacity_unavailable");
    assert_eq!(apart.bucket.stored(), []);

    // Its client does without its processes.
    let path = format!("/sandboxes/{sandbox}/connect");
    let call = apart.cluster.api(1, "POST", &path);
    let anew = call.json(r#"{"timeout":60,"memory":false}"#).send().await;
    assert_eq!(anew.status, 201, "{}", anew.text);
    apart.runs_at(&sandbox, other).await;
    home.fail_creates(None);
    apart.kill(&sandbox).await;

    let (sandbox, home, other) = apart.paused(FILES_ONLY).await;
    home.fail_creates(full());
    apart.bucket.is_away(true);
    let refused = apart.connect(0, &sandbox).await;
    refused.error_code(503, "sandbox_capacity_unavailable");
    apart.bucket.is_away(false);
    let moved = apart.connect(0, &sandbox).await;
    assert_eq!(moved.status, 201, "{}", moved.text);
    apart.runs_at(&sandbox, other).await;
}

/// One of the servers has not heard yet that the node is lost, and that is not.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_resume_it_at_two_nodes_one_wins() {
    let blind = |config: &mut ControlConfig| {
        config.servers = Sharing::Several(Shared {
            address: None,
            version: "1".into(),
            leases: None,
            events: None,
            times: TIMES,
        });
    };
    let apart = Apart::with(AT_ONCE, blind).await;
    let home = &apart.nodes[0];
    // At the other one only the second server asks for anything.
    for _ in 0..10 {
        let sandbox = loop {
            let sandbox = apart.cluster.create(0).await;
            if home.running().contains(&sandbox) {
                break sandbox;
            }
            apart.kill(&sandbox).await;
        };
        apart.pause(&sandbox, WITH_MEMORY).await;
        apart.stored(&sandbox, None).await;
        apart.cluster.controls[1].remove_node(&home.name());
        let both = tokio::join!(apart.connect(0, &sandbox), apart.connect(1, &sandbox));
        let statuses = [both.0.status.as_u16(), both.1.status.as_u16()];
        assert!(
            statuses.iter().any(|status| [200, 201].contains(status)),
            "{} {}",
            both.0.text,
            both.1.text
        );
        let row = apart.row(&sandbox).await;
        let mut nodes = apart.nodes.iter();
        let winner = nodes.find(|node| node.name() == row.node).unwrap();
        apart.runs_at(&sandbox, winner).await;
        apart.kill(&sandbox).await;
        let link = NodeLink {
            port: Arc::new(home.clone()),
            carrier: Some(apart.bucket.carrier(home)),
        };
        apart.cluster.controls[1].add_node(&home.name(), link);
        apart.connected(1, 2).await;
    }
}

/// A server died between the other node's answer and the row.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_no_row_came_to_name_is_ended() {
    let apart = Apart::new(NOT_NOW).await;
    let (sandbox, home, other) = apart.paused(WITH_MEMORY).await;
    let before = apart.row(&sandbox).await;
    other.run_unrecorded(&sandbox, &apart.cluster.team, "a server that died");
    until("it is ended", || async {
        !other.running().contains(&sandbox)
    })
    .await;
    assert_eq!(apart.row(&sandbox).await, before);
    assert!(home.kept(&sandbox).is_some());
    assert_eq!(apart.connect(0, &sandbox).await.status, 201);
    apart.runs_at(&sandbox, home).await;
}

/// The word about a copy comes late: the sandbox has come to that node meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_copy_ends_no_later_run() {
    let apart = Apart::new(NOT_NOW).await;
    let (sandbox, home, other) = apart.paused(FILES_ONLY).await;
    home.fail_creates(full());
    assert_eq!(apart.connect(0, &sandbox).await.status, 201);
    apart.runs_at(&sandbox, other).await;
    let begun = apart.row(&sandbox).await.started_at;
    other.tell_end(&sandbox, begun - Duration::from_secs(1));
    // Words of one node are heard in their order, and what is not noted is repeated.
    tokio::time::sleep(Duration::from_millis(500)).await;
    apart.runs_at(&sandbox, other).await;
    other.exit(&sandbox);
    until("its own end is noted", || async {
        let state = apart.cluster.state_of(&sandbox).await;
        matches!(state, Some(SandboxState::Dead { .. }))
    })
    .await;
}
