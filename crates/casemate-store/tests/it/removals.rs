//! A node is removed as one with which nothing ends, while what rests there goes on.

use std::sync::Arc;
use std::time::Duration;

use casemate_sql::postgres::connect_alone;
use casemate_store::sql::SqlStore;
use casemate_store::testing::{TempPostgres, TempStore};
use casemate_store::{NodeStanding, Nodes, Sandbox, Sandboxes, StoreError, StoredArtifact, Team};
use casemate_types::{EndReason, Portable, SandboxState, SnapshotId};
use sqlx::{Connection, PgConnection};

use crate::fixture_rows::at;
use crate::places::{joins, paused, resume};
use crate::postgres::new_team;

/// The node of [`paused`], which is drained, and another one.
async fn drained(store: &SqlStore, team: &Team) -> Sandbox {
    let row = paused(store, team).await;
    for id in [row.node.as_str(), "another"] {
        joins(store, id).await;
    }
    let standing = store.node_set_standing(&row.node, NodeStanding::Draining);
    assert!(standing.await.unwrap());
    let artifact = StoredArtifact {
        what: Portable::Snapshot(SnapshotId::random_of_pause()),
        team: team.id.clone(),
        artifact: "there".into(),
        bytes: 7,
    };
    let stored = store.sandbox_store(&row.id, row.generation, &artifact);
    stored.await.unwrap();
    row
}

/// Either it was removed and the sandbox rests, or it runs there.
async fn check(store: &SqlStore, row: &Sandbox, removed: bool, resumed: Result<(), StoreError>) {
    let node = store.node_by_id(&row.node).await.unwrap();
    let state = store.sandbox_by_id(&row.id).await.unwrap().unwrap().state;
    let runs = matches!(state, SandboxState::Running { .. });
    match resumed {
        Ok(()) => assert!(!removed && node.is_some() && runs),
        Err(StoreError::NodeGone { node: gone }) => {
            assert!(removed && node.is_none() && !runs);
            assert_eq!(gone, row.node);
        }
        Err(other) => panic!("{other:?}"),
    }
}

async fn race(stores: [Arc<SqlStore>; 2]) {
    const TURNS: usize = 40;
    let [first, second] = &stores;
    let team = new_team(&**first).await;
    for turn in 0..TURNS {
        let row = drained(first, &team).await;
        let (removes, resumes) = (Arc::clone(first), Arc::clone(second));
        let (there, waits) = (row.clone(), turn % 3 == 0);
        let removing = tokio::spawn(async move {
            if waits {
                tokio::task::yield_now().await;
            }
            removes.node_remove_unused(&there.node).await.unwrap()
        });
        let resumed = resume(&resumes, &row, 1000).await;
        check(first, &row, removing.await.unwrap(), resumed).await;
        first.node_remove(&row.node).await.unwrap();
        let now = first.sandbox_by_id(&row.id).await.unwrap().unwrap();
        let ended = first.sandbox_end(&row.id, now.generation, EndReason::Lost, at(99));
        ended.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_or_its_sandbox_goes_on_on_sqlite() {
    let store = TempStore::open().await;
    race([store.share(), store.share()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_or_its_sandbox_goes_on_on_postgres() {
    let Some(first) = TempPostgres::open().await else {
        return;
    };
    let second = first.beside().await;
    race([first.share(), second.share()]).await;
}

/// What another server has done and not committed yet.
struct Holds(PgConnection);

impl Holds {
    async fn after(store: &TempPostgres, done: &'static str, row: &Sandbox) -> Self {
        let mut connection = connect_alone(store.options()).await.unwrap();
        let begin = sqlx::raw_sql("BEGIN");
        begin.execute(&mut connection).await.unwrap();
        let did: bool = sqlx::query_scalar(done)
            .bind(&row.node)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert!(did);
        Self(connection)
    }

    /// Somebody waits for it; then it is committed.
    async fn until_awaited(mut self) {
        const PATIENCE: Duration = Duration::from_secs(60);
        let waits = async {
            let count = "SELECT COUNT(*) FROM pg_stat_activity \
                 WHERE datname = current_database() AND wait_event_type = 'Lock'";
            while sqlx::query_scalar::<_, i64>(count)
                .fetch_one(&mut self.0)
                .await
                .unwrap()
                == 0
            {
                let again = sqlx::raw_sql("SELECT pg_stat_clear_snapshot(), pg_sleep(0.01)");
                again.execute(&mut self.0).await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, waits).await.unwrap();
        let commit = sqlx::raw_sql("COMMIT");
        commit.execute(&mut self.0).await.unwrap();
        self.0.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_second_sees_what_the_first_one_did() {
    let Some(store) = TempPostgres::open().await else {
        return;
    };
    let team = new_team(&*store).await;
    let row = drained(&store, &team).await;
    let holds = Holds::after(&store, "SELECT node_remove_unused($1)", &row).await;
    let (resuming, paused) = (store.share(), row.clone());
    let resumed = tokio::spawn(async move { resume(&resuming, &paused, 1000).await });
    holds.until_awaited().await;
    check(&store, &row, true, resumed.await.unwrap()).await;

    let row = drained(&store, &team).await;
    let resumes = "WITH done AS (UPDATE sandboxes SET state = 'running', stored_files = NULL, \
         kept = NULL, generation = generation + 1 \
         WHERE node = $1 AND state = 'paused' AND stored_files IS NOT NULL \
         AND (SELECT node_stays($1)) RETURNING 1) SELECT COUNT(*) > 0 FROM done";
    let holds = Holds::after(&store, resumes, &row).await;
    let (removing, there) = (store.share(), row.clone());
    let removed =
        tokio::spawn(async move { removing.node_remove_unused(&there.node).await.unwrap() });
    holds.until_awaited().await;
    check(&store, &row, removed.await.unwrap(), Ok(())).await;
}
