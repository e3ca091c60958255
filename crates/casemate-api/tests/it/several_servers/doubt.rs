//! A server's write fails, and what it has made at a node by then is its own to end.

use std::sync::Arc;

use casemate_catalog::Catalog;
use casemate_control::testing::FakeNode;
use casemate_store::testing::{Fault, FaultyStore, TempStore};
use casemate_types::{SandboxId, SandboxState};

use super::elsewhere::Apart;
use crate::world::{Answer, until};

/// Both servers' ways to one store.
struct Faulty {
    apart: Apart,
    stores: [Arc<FaultyStore>; 2],
    _file: TempStore,
}

impl Faulty {
    async fn new() -> Self {
        let file = TempStore::open().await;
        let stores = [(); 2].map(|()| Arc::new(FaultyStore::over(file.share())));
        let apart = Apart::over(stores.each_ref().map(|one| Arc::clone(one) as _)).await;
        Self {
            apart,
            stores,
            _file: file,
        }
    }

    /// The server that does not keep this node: nobody else looks for what it makes there.
    async fn other_than_keeper(&self, node: &FakeNode) -> usize {
        let cluster = &self.apart.cluster;
        until("one keeps it", || cluster.is_kept(node)).await;
        1 - cluster.keeper_of(node).await
    }

    /// What a server answers whose store fails at these calls from when the node was asked on.
    async fn connect_failing(
        &self,
        server: usize,
        sandbox: &SandboxId,
        node: &FakeNode,
        faults: &[(&'static str, Fault)],
    ) -> Answer {
        let asked = node.creates();
        node.hold_creates();
        let connect = self.apart.connect(server, sandbox);
        let (answer, ()) = tokio::join!(connect, async {
            until("the node was asked", || async { node.creates() > asked }).await;
            for (call, fault) in faults {
                self.stores[server].fail(call, *fault);
            }
            node.release_creates();
        });
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_a_failed_write_left_is_ended_by_who_made_it() {
    let faulty = Faulty::new().await;
    let apart = &faulty.apart;
    let away = [
        ("sandbox_resume", Fault::Away),
        ("sandbox_by_id", Fault::Away),
    ];
    // Its row cannot be read for a while, or the node does not end it at first.
    for (faults, kills) in [(&away[..], 0), (&away[..1], 1)] {
        let (sandbox, home, other) = apart.lost().await;
        let before = apart.row(&sandbox).await;
        let server = faulty.other_than_keeper(other).await;
        let store = &faulty.stores[server];
        let (resumes, reads) = (
            store.failed("sandbox_resume"),
            store.failed("sandbox_by_id"),
        );
        other.fail_kills(kills);
        let refused = faulty
            .connect_failing(server, &sandbox, other, faults)
            .await;
        refused.error(503);
        assert_eq!(store.failed("sandbox_resume"), resumes + 1);
        if kills == 0 {
            until("its row was asked for in vain", || async {
                store.failed("sandbox_by_id") > reads
            })
            .await;
        }
        store.heal();
        until("the copy is ended", || async {
            !other.running().contains(&sandbox)
        })
        .await;
        assert_eq!(apart.row(&sandbox).await, before);
        // The server hears of that end a moment later.
        until("it can go on", || async {
            let resumed = apart.connect(server, &sandbox).await;
            assert!(
                [201, 409].contains(&resumed.status.as_u16()),
                "{}",
                resumed.text
            );
            resumed.status == 201
        })
        .await;
        apart.give(home);
        apart.runs_at(&sandbox, other).await;
        apart.kill(&sandbox).await;
    }
}

/// The write was done, and its answer was lost.
#[tokio::test(flavor = "multi_thread")]
async fn one_whose_row_came_to_name_the_node_goes_on_there() {
    let faulty = Faulty::new().await;
    let apart = &faulty.apart;
    let (sandbox, home, other) = apart.lost().await;
    let server = faulty.other_than_keeper(other).await;
    let lost = [("sandbox_resume", Fault::AnswerLost)];
    let refused = faulty.connect_failing(server, &sandbox, other, &lost).await;
    refused.error(503);
    faulty.stores[server].heal();
    let row = apart.row(&sandbox).await;
    assert!(matches!(row.state, SandboxState::Running { .. }), "{row:?}");
    until("its route leads there", || async {
        let route = apart.cluster.catalog.route_by_id(&sandbox).await.unwrap();
        route.is_some_and(|route| (route.node, route.asleep) == (other.name(), false))
    })
    .await;
    apart.give(home);
    apart.runs_at(&sandbox, other).await;
}

/// A create this time: its row was not written, and the node does not end it at first.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_create_left_is_ended_by_who_made_it() {
    let faulty = Faulty::new().await;
    let cluster = &faulty.apart.cluster;
    let server = 1 - cluster.keeper().await;
    let store = &faulty.stores[server];
    store.fail("sandbox_insert", Fault::Away);
    for node in faulty.apart.nodes() {
        node.fail_kills(1);
    }
    cluster.try_create(server).await.error(503);
    assert_eq!(store.failed("sandbox_insert"), 1);
    until("it is ended", || async {
        faulty
            .apart
            .nodes()
            .iter()
            .all(|node| node.running().is_empty())
    })
    .await;
}
