//! Two nodes and a bucket in memory: what one keeps, the other has.

use std::path::Path;
use std::sync::Arc;

use casemate_artifacts::{Artifacts, ArtifactsConfig, Kind, PutRequest, Scope};
use casemate_carrier::NearCarrier;
use casemate_node::{AdmissionLimits, Node, NodeConfig};
use casemate_rpc::NodePort;
use casemate_rpc::carrier::{Carrier, CarrierError, FetchRequest, StoreRequest};
use casemate_runtime::fake::FakeRuntime;
use casemate_types::{LayerId, Portable, SnapshotId};

/// A machine with a node.
struct Machine {
    _dir: tempfile::TempDir,
    runtime: Arc<FakeRuntime>,
    node: Node,
    carrier: NearCarrier,
}

impl Machine {
    async fn new(artifacts: &Artifacts) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime: Arc<FakeRuntime> = Arc::default();
        let node = start(dir.path(), &runtime).await;
        Self {
            carrier: NearCarrier::new(Arc::new(node.clone()), artifacts.clone()),
            _dir: dir,
            runtime,
            node,
        }
    }

    async fn fetch(&self, what: &Portable, artifact: &str) -> Result<u64, CarrierError> {
        let request = FetchRequest {
            what: what.clone(),
            scope: TEAM.into(),
            artifact: artifact.into(),
        };
        self.carrier.fetch(request).await
    }

    async fn layers(&self) -> Vec<LayerId> {
        self.node.layers(None).await.unwrap()
    }
}

async fn start(dir: &Path, runtime: &Arc<FakeRuntime>) -> Node {
    let config = NodeConfig {
        name: "test".into(),
        version: "0".into(),
        journal_dir: dir.join("journal"),
        admission: AdmissionLimits {
            sandboxes_max: 10,
            memory_overcommit: 1.0,
            memory_reserve_bytes: 1,
            disk_reserve_bytes: 1,
        },
        boots_max: 1,
        queue_max: 1,
        paused_memory_bytes: 0,
        paused_max: 0,
        cache_bytes_max: u64::MAX,
    };
    let (sandboxes, snapshots) = (Arc::clone(runtime), Arc::clone(runtime));
    Node::start(config, sandboxes, snapshots).await.unwrap()
}

const TEAM: &str = "team";

fn bucket() -> Artifacts {
    Artifacts::in_memory(&ArtifactsConfig::default()).unwrap()
}

fn store(what: &Portable) -> StoreRequest {
    StoreRequest {
        what: what.clone(),
        scope: TEAM.into(),
        like: None,
    }
}

/// A layer that a machine has.
async fn sealed(machine: &Machine, content: &str) -> Portable {
    let layer = LayerId::random();
    machine.runtime.has_layer(&layer, content);
    Portable::Layer(layer)
}

#[tokio::test]
async fn what_one_node_keeps_another_has() {
    let bucket = bucket();
    let (one, two) = (Machine::new(&bucket).await, Machine::new(&bucket).await);
    // More than a piece, and more than sockets hold.
    let content: String = (0..1_500_000).map(|n: u32| format!("{n:x} ")).collect();
    let what = sealed(&one, &content).await;
    let stored = one.carrier.store(store(&what)).await.unwrap();
    assert!(stored.bytes > content.len() as u64 && stored.bytes_sent > 0);
    let bytes = two.fetch(&what, &stored.artifact).await.unwrap();
    assert_eq!(bytes, content.len() as u64);
    let Portable::Layer(layer) = &what else {
        unreachable!("it is a layer");
    };
    assert_eq!(two.layers().await, std::slice::from_ref(layer));
    // What is there is in the bucket already, and by another node the same.
    let again = StoreRequest {
        like: Some(stored.artifact.clone()),
        ..store(&what)
    };
    let again = two.carrier.store(again).await.unwrap();
    assert_eq!((again.bytes, again.bytes_sent), (stored.bytes, 0));
    // What is at the node is not read again.
    assert_eq!(two.fetch(&what, &stored.artifact).await, Ok(bytes));
}

#[tokio::test]
async fn what_is_missing_leaves_nothing_anywhere() {
    let bucket = bucket();
    let machine = Machine::new(&bucket).await;
    let what = Portable::Snapshot(SnapshotId::random());
    let missing = machine.carrier.store(store(&what)).await;
    assert!(
        matches!(missing, Err(CarrierError::NotThere { .. })),
        "{missing:?}"
    );
    let scope: Scope = TEAM.parse().unwrap();
    assert!(bucket.manifests(&scope).await.unwrap().is_empty());
    let nowhere = format!("{}-7", "0".repeat(64));
    let missing = machine.fetch(&what, &nowhere).await;
    assert!(
        matches!(missing, Err(CarrierError::NotThere { .. })),
        "{missing:?}"
    );
    let invalid = machine.fetch(&what, "../7").await;
    assert!(
        matches!(invalid, Err(CarrierError::Invalid { .. })),
        "{invalid:?}"
    );
    let mut elsewhere = store(&what);
    elsewhere.scope = "a/b".into();
    let invalid = machine.carrier.store(elsewhere).await;
    assert!(
        matches!(invalid, Err(CarrierError::Invalid { .. })),
        "{invalid:?}"
    );
    assert!(machine.layers().await.is_empty());
}

#[tokio::test]
async fn what_is_no_tree_or_has_no_room_is_said() {
    let bucket = bucket();
    let machine = Machine::new(&bucket).await;
    let scope: Scope = TEAM.parse().unwrap();
    let put = PutRequest {
        scope: &scope,
        kind: Kind::Layer,
        name: "no tree",
        bytes_max: 100,
        like: None,
    };
    let put = bucket.put(put, &b"no tree"[..]).await.unwrap();
    let what = Portable::Layer(LayerId::random());
    let refused = machine.fetch(&what, &put.artifact.to_string()).await;
    assert!(
        matches!(refused, Err(CarrierError::Corrupt { .. })),
        "{refused:?}"
    );
    assert!(machine.layers().await.is_empty());

    let other = Machine::new(&bucket).await;
    let what = sealed(&other, "content").await;
    let stored = other.carrier.store(store(&what)).await.unwrap();
    machine.runtime.has_no_room(true);
    let full = machine.fetch(&what, &stored.artifact).await;
    assert!(matches!(full, Err(CarrierError::Full { .. })), "{full:?}");
    assert!(machine.layers().await.is_empty());
}

#[tokio::test]
async fn several_that_want_the_same_wait_for_one() {
    let bucket = bucket();
    let (one, two) = (Machine::new(&bucket).await, Machine::new(&bucket).await);
    let what = sealed(&one, "content").await;
    let stored = one.carrier.store(store(&what)).await.unwrap();
    let fetches = (0..8).map(|_| two.fetch(&what, &stored.artifact));
    for fetched in futures_util::future::join_all(fetches).await {
        assert_eq!(fetched, Ok(7));
    }
    assert_eq!(two.runtime.unpacked(), 1, "it came once");
}
