//! A team's last places, while what a lost node had ends or comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use casemate_sql::postgres::connect_alone;
use casemate_store::sql::SqlStore;
use casemate_store::testing::{TempPostgres, TempStore};
use casemate_store::{
    NewRun, Node, NodeJoin, Nodes, Sandbox, SandboxFilter, Sandboxes, StoreError, Team,
};
use casemate_types::{EndReason, Kept, OnTimeout, SandboxId};
use sqlx::{Connection, PgConnection};

use crate::fixture_rows::{self, at};
use crate::postgres::new_team;

const LOST: &str = "node-lost";

pub(crate) async fn joins(store: &SqlStore, id: &str) -> Node {
    let join = NodeJoin {
        id: id.to_owned(),
        address: "10.0.0.7:8082".into(),
        labels: BTreeMap::new(),
        isolation: "namespaces".into(),
    };
    store.node_join(&join).await.unwrap()
}

/// Beside the one of all others.
async fn lose_a_node(store: &SqlStore) -> u64 {
    joins(store, &fixture_rows::running().node).await;
    let generation = joins(store, LOST).await.generation;
    store.node_fence(LOST, generation).await.unwrap()
}

pub(crate) fn row(team: &Team) -> Sandbox {
    Sandbox {
        id: SandboxId::random(),
        team: team.id.clone(),
        ..fixture_rows::running()
    }
}

async fn lost(store: &SqlStore, team: &Team) -> Sandbox {
    let row = Sandbox {
        node: LOST.into(),
        ..row(team)
    };
    store.sandbox_insert(&row, None).await.unwrap();
    row
}

async fn end(store: &SqlStore, row: &Sandbox) -> Result<(), StoreError> {
    let ended = store.sandbox_end(&row.id, row.generation, EndReason::Killed, at(9));
    ended.await.map(drop)
}

pub(crate) async fn paused(store: &SqlStore, team: &Team) -> Sandbox {
    let row = row(team);
    store.sandbox_insert(&row, None).await.unwrap();
    let paused = store.sandbox_pause(&row.id, row.generation, at(9), Kept::Files);
    Sandbox {
        generation: paused.await.unwrap(),
        ..row
    }
}

pub(crate) async fn resume(store: &SqlStore, row: &Sandbox, max: u32) -> Result<(), StoreError> {
    let run = NewRun {
        node: &row.node,
        started_at: at(10),
        ends_at: at(99),
        on_timeout: OnTimeout::Kill,
    };
    let resumed = store.sandbox_resume(&row.id, row.generation, &run, Some(max));
    resumed.await.map(drop)
}

async fn running(store: &SqlStore, team: &Team) -> u64 {
    let running = SandboxFilter::running(team.id.clone());
    store.sandbox_count(&running).await.unwrap()
}

/// Creates and resumes at two servers, and as many ends of what is lost: each place is given once.
async fn race(stores: [Arc<SqlStore>; 2]) {
    const TURNS: u32 = 25;
    const OF_EACH_KIND: usize = 6;
    let [first, _] = &stores;
    lose_a_node(first).await;
    for turn in 0..TURNS {
        let team = new_team(&**first).await;
        let places = 1 + turn % 4;
        let mut racers = Vec::new();
        for number in 0..OF_EACH_KIND {
            let store = |of: usize| Arc::clone(&stores[(number + of) % 2]);
            let gone = lost(first, &team).await;
            let rests = paused(first, &team).await;
            let (ending, creating, resuming) = (store(0), store(1), store(0));
            let new = row(&team);
            racers.push(tokio::spawn(async move {
                end(&ending, &gone).await.unwrap();
                false
            }));
            racers.push(tokio::spawn(async move {
                is_placed(creating.sandbox_insert(&new, Some(places)).await)
            }));
            racers.push(tokio::spawn(async move {
                is_placed(resume(&resuming, &rests, places).await)
            }));
        }
        let mut placed = 0;
        for racer in racers {
            placed += u32::from(racer.await.unwrap());
        }
        assert_eq!(placed, places, "turn {turn}");
        assert_eq!(running(first, &team).await, u64::from(places));
    }
}

fn is_placed(done: Result<(), StoreError>) -> bool {
    match done {
        Ok(()) => true,
        Err(StoreError::TeamFull { .. }) => false,
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_given_once_while_lost_sandboxes_end_on_sqlite() {
    let store = TempStore::open().await;
    race([store.share(), store.share()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_given_once_while_lost_sandboxes_end_on_postgres() {
    let Some(first) = TempPostgres::open().await else {
        return;
    };
    let second = first.beside().await;
    race([first.share(), second.share()]).await;
}

/// Everybody who asks for a team's last place waits for this one.
struct Holds(PgConnection);

impl Holds {
    async fn last_place(store: &TempPostgres, team: &Team) -> Self {
        let mut connection = connect_alone(store.options()).await.unwrap();
        sqlx::raw_sql("BEGIN")
            .execute(&mut connection)
            .await
            .unwrap();
        let has_place: bool = sqlx::query_scalar("SELECT sandbox_has_place($1, 0)")
            .bind(team.id.as_str())
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert!(!has_place);
        Self(connection)
    }

    async fn somebody_waits(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(60);
        let waits = async {
            let count = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
                 AND wait_event_type = 'Lock' AND wait_event = 'advisory'";
            while sqlx::query_scalar::<_, i64>(count)
                .fetch_one(&mut self.0)
                .await
                .unwrap()
                == 0
            {
                // What one transaction sees of it stays as it is.
                sqlx::raw_sql("SELECT pg_stat_clear_snapshot(), pg_sleep(0.01)")
                    .execute(&mut self.0)
                    .await
                    .unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, waits).await.unwrap();
    }

    async fn lets_go(mut self) {
        sqlx::raw_sql("COMMIT").execute(&mut self.0).await.unwrap();
        self.0.close().await.unwrap();
    }
}

/// What is lost ends, or its node returns, between a statement's begin and its turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waited_for_its_turn_counts_what_runs_then() {
    #[derive(Clone, Copy)]
    enum Meanwhile {
        LostEnds,
        NodeReturns,
    }
    let Some(store) = TempPostgres::open().await else {
        return;
    };
    for meanwhile in [Meanwhile::LostEnds, Meanwhile::NodeReturns] {
        for resumes in [false, true] {
            let team = new_team(&*store).await;
            let generation = lose_a_node(&store).await;
            let gone = lost(&store, &team).await;
            // Two may run: the lost one comes back beside the one here, or the two are here.
            store.sandbox_insert(&row(&team), Some(2)).await.unwrap();
            if let Meanwhile::LostEnds = meanwhile {
                store.sandbox_insert(&row(&team), Some(2)).await.unwrap();
            }
            let (new, rests) = (row(&team), paused(&store, &team).await);
            let mut holds = Holds::last_place(&store, &team).await;
            let asking = store.share();
            let asked = tokio::spawn(async move {
                match resumes {
                    true => resume(&asking, &rests, 2).await,
                    false => asking.sandbox_insert(&new, Some(2)).await,
                }
            });
            holds.somebody_waits().await;
            match meanwhile {
                Meanwhile::LostEnds => end(&store, &gone).await.unwrap(),
                Meanwhile::NodeReturns => store.node_return(LOST, generation).await.unwrap(),
            }
            holds.lets_go().await;
            assert!(!is_placed(asked.await.unwrap()));
            assert_eq!(running(&store, &team).await, 2);
        }
    }
}
