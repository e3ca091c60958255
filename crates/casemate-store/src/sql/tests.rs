//! What cannot be seen from outside: how commits are synced, and which index serves a page.

use casemate_sql::{Pool, Sql, query_scalar};
use sqlx::{AssertSqlSafe, Row};

use super::{builds, sandboxes, template_pages};
use crate::testing::TempStore;

async fn synchronous(pool: &Pool) -> i64 {
    let level = query_scalar("PRAGMA synchronous");
    level.fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn durable_commits_are_synced_and_fast_ones_are_not() {
    const NORMAL: i64 = 1;
    const FULL: i64 = 2;
    let store = TempStore::open().await;
    assert_eq!(synchronous(&store.durable).await, FULL);
    assert_eq!(synchronous(&store.fast).await, NORMAL);
    let mode: String = query_scalar("PRAGMA journal_mode")
        .fetch_one(&store.readers)
        .await
        .unwrap();
    assert_eq!(mode, "wal");
}

/// Without subqueries of single rows, which may sort what is the row's own.
async fn plan(store: &TempStore, sql: Sql) -> String {
    let explain = format!("EXPLAIN QUERY PLAN {}", sql.sqlite);
    let Pool::Sqlite(pool) = &store.durable else {
        panic!("a temporary store is a file");
    };
    let rows = sqlx::query(AssertSqlSafe(explain))
        .fetch_all(pool)
        .await
        .unwrap();
    let top = rows.iter().filter(|row| row.get::<i64, _>("parent") == 0);
    let plan: Vec<String> = top.map(|row| row.get("detail")).collect();
    plan.join("\n")
}

#[tokio::test]
async fn pages_are_read_in_the_order_of_an_index() {
    let store = TempStore::open().await;
    let sandboxes = sandboxes::PAGES.map(|sql| (sql, "sandboxes_alive"));
    let templates = template_pages::PAGES.map(|(sql, index)| (sql.into(), index));
    for (sql, index) in sandboxes.into_iter().chain(templates) {
        let plan = plan(&store, sql).await;
        assert!(plan.contains(&format!("INDEX {index} ")), "{plan}");
        assert!(!plan.contains("TEMP B-TREE FOR ORDER BY"), "{plan}");
    }
}

#[tokio::test]
async fn sweeps_and_counts_go_along_an_index() {
    let store = TempStore::open().await;
    for (sql, index) in builds::sweeps() {
        let plan = plan(&store, sql).await;
        assert!(plan.contains(&format!("INDEX {index} ")), "{plan}");
        assert!(!plan.contains("SCAN builds"), "{plan}");
    }
}
