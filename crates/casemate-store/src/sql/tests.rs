//! What cannot be seen from outside: how commits are synced, and which index serves a page.

use casemate_sql::postgres::connect_alone;
use casemate_sql::{Pool, Sql, query_scalar};
use sqlx::{AssertSqlSafe, Row};

use super::{builds, sandboxes, template_pages};
use crate::testing::{TempPostgres, TempStore};
use crate::{Schema, SqlStore, Store};

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

/// … and where they begin is found in it, not counted to.
#[tokio::test]
async fn a_page_of_sandboxes_begins_at_its_place_in_the_index() {
    let store = TempStore::open().await;
    for (sql, condition) in sandboxes::PAGES
        .into_iter()
        .zip(["started_at<?", "started_at>?"])
    {
        let plan = plan(&store, sql).await;
        assert!(plan.contains(condition), "{plan}");
    }
    let count = plan(&store, sandboxes::COUNT_ALL).await;
    assert!(count.contains("COVERING INDEX sandboxes_alive"), "{count}");
    let Some(store) = TempPostgres::open().await else {
        return;
    };
    let count = postgres_plan(&store, sandboxes::COUNT_ALL, "text, text[], bigint").await;
    assert!(
        count.contains("Index Only Scan using sandboxes_alive"),
        "{count}"
    );
    let filter = "text, text[], text[], text, bigint, bigint, text, bigint";
    for (sql, condition) in sandboxes::PAGES
        .into_iter()
        .zip(["started_at <= $6", "started_at >= $6"])
    {
        let plan = postgres_plan(&store, sql, filter).await;
        let found = plan.lines().find(|line| line.contains("Index Cond"));
        assert!(found.is_some_and(|line| line.contains(condition)), "{plan}");
    }
}

#[tokio::test]
async fn what_a_node_has_and_what_a_team_runs_go_along_an_index() {
    let store = TempStore::open().await;
    let counted = "SELECT COUNT(*) FROM sandboxes WHERE team_id = $2 AND state = 'running'";
    for (sql, index) in [
        (counted, "sandboxes_running"),
        (sandboxes::ALIVE_AT_NODE, "sandboxes_node"),
        (sandboxes::NOWHERE, "sandboxes_node"),
    ] {
        let plan = plan(&store, sql.into()).await;
        assert!(plan.contains(&format!("INDEX {index} ")), "{plan}");
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

/// How PostgreSQL goes about a statement whose values have these types, where it may choose.
async fn postgres_plan(store: &TempPostgres, sql: Sql, types: &str) -> String {
    let mut connection = connect_alone(store.options()).await.unwrap();
    let nulls = vec!["NULL"; types.split(',').count()].join(", ");
    for order in [
        "SET plan_cache_mode = force_generic_plan".into(),
        "SET enable_seqscan = off".into(),
        "SET enable_sort = off".into(),
        "SET enable_bitmapscan = off".into(),
        format!("PREPARE one ({types}) AS {}", sql.postgres),
    ] {
        sqlx::raw_sql(AssertSqlSafe(order))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let explain = format!("EXPLAIN EXECUTE one ({nulls})");
    let rows = sqlx::raw_sql(AssertSqlSafe(explain))
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    plan.join("\n")
}

#[tokio::test]
async fn postgres_reads_pages_in_the_order_of_an_index() {
    let Some(store) = TempPostgres::open().await else {
        return;
    };
    let filter = "text, text[], text[], text, bigint, bigint, text, bigint";
    let page = "text, bigint, text, bigint";
    let sandboxes = sandboxes::PAGES.map(|sql| (sql, "sandboxes_alive", filter));
    let templates = template_pages::PAGES.map(|(sql, index)| (sql.into(), index, page));
    for (sql, index, types) in sandboxes.into_iter().chain(templates) {
        let plan = postgres_plan(&store, sql, types).await;
        assert!(plan.contains(index), "{plan}");
        // The first lines: subqueries of single rows may sort what is the row's own.
        let top = plan.split("SubPlan").next().unwrap_or_default();
        assert!(!top.contains("Sort  ("), "{plan}");
    }
}

#[tokio::test]
async fn postgres_waits_for_the_disk_but_for_notes() {
    let Some(store) = TempPostgres::open().await else {
        return;
    };
    for (pool, expected) in [
        (&store.fast, "on"),
        (&store.durable, "on"),
        (&store.notes, "off"),
    ] {
        let level = query_scalar("SELECT current_setting('synchronous_commit')");
        let level: String = level.fetch_one(pool).await.unwrap();
        assert_eq!(level, expected);
    }
}

#[tokio::test]
async fn a_database_that_takes_no_writes_does_not_answer_a_ping() {
    let Some(store) = TempPostgres::open().await else {
        return;
    };
    store.ping().await.unwrap();
    let options = store.options();
    let refuse = format!(
        "ALTER DATABASE \"{}\" SET default_transaction_read_only = on",
        options.database
    );
    let mut admin = connect_alone(options).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(refuse))
        .execute(&mut admin)
        .await
        .unwrap();
    let standby = SqlStore::connect(options, Schema::Check).await.unwrap();
    let error = standby.ping().await.unwrap_err();
    assert!(
        format!("{error:?}").contains("takes no writes"),
        "{error:?}"
    );
}
