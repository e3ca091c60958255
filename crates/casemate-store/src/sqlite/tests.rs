//! What cannot be seen from outside: how commits are synced, and which index serves a page.

use sqlx::{AssertSqlSafe, Row};

use super::sandboxes::PAGES;
use crate::testing::TempStore;

async fn synchronous(pool: &sqlx::SqlitePool) -> i64 {
    let level = sqlx::query_scalar("PRAGMA synchronous");
    level.fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn durable_commits_are_synced_and_fast_ones_are_not() {
    const NORMAL: i64 = 1;
    const FULL: i64 = 2;
    let store = TempStore::open().await;
    assert_eq!(synchronous(&store.durable).await, FULL);
    assert_eq!(synchronous(&store.fast).await, NORMAL);
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&store.readers)
        .await
        .unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn pages_are_read_in_the_order_of_an_index() {
    let store = TempStore::open().await;
    for sql in PAGES {
        let explain = format!("EXPLAIN QUERY PLAN {sql}");
        let rows = sqlx::query(AssertSqlSafe(explain))
            .fetch_all(&store.readers)
            .await
            .unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("USING INDEX sandboxes_alive"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE FOR ORDER BY"), "{plan}");
    }
}
