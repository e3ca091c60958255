//! A store moves from a file to PostgreSQL.

use std::path::Path;
use std::time::Duration;

use casemate_sql::postgres::PostgresOptions;
use casemate_sql::testing::Postgres;
use casemate_store::sql::{CopyError, Schema, SqlStore, TABLES, copy, migrate};
use casemate_store::testing::{TempPostgres, TempStore};
use casemate_store::{
    Artifacts, JoinRole, JoinTokens, Leases, NewJoinToken, NodeJoin, Nodes, Sandboxes, ServerBeat,
    Servers, Settings, SqliteStore, StoredArtifact, Teams,
};
use casemate_types::{LayerId, Portable, SandboxId, Timestamp};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::{fixture_rows, fixtures};

async fn target() -> Option<PostgresOptions> {
    let options = Postgres::shared()?.database(None).await;
    migrate(&options).await.unwrap();
    Some(options)
}

/// A file with rows in every table, and some more in one.
async fn filled(dir: &Path) -> SqliteStore {
    let path = dir.join("store.sqlite");
    std::fs::copy(fixtures::fixtures().last().unwrap(), &path).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    let node = NodeJoin {
        id: "node-1".into(),
        address: "10.0.0.1:8082".into(),
        labels: [("zone".into(), "a".into())].into(),
        isolation: "namespaces".into(),
    };
    store.node_join(&node).await.unwrap();
    let token = NewJoinToken {
        id: "token".into(),
        hash: [3; 32],
        role: JoinRole::Node,
        lasts: Duration::from_secs(600),
        uses_left: Some(2),
    };
    store.join_token_put(&token).await.unwrap();
    store
        .lease_take("janitor", "me", Duration::from_secs(600))
        .await
        .unwrap();
    let beat = ServerBeat {
        id: "server".into(),
        address: None,
        version: "1".into(),
    };
    store.server_beat(&beat).await.unwrap();
    let artifact = StoredArtifact {
        what: Portable::Layer(LayerId::random()),
        team: fixture_rows::team().id,
        artifact: "a-1".into(),
        bytes: 1,
    };
    assert!(store.artifact_put(&artifact).await.unwrap());
    for number in 0..1203 {
        let mut sandbox = fixture_rows::running();
        sandbox.id = SandboxId::random();
        sandbox.started_at = Timestamp::from_microsecond(1_800_000_000_000_000 + number).unwrap();
        sandbox.metadata.insert("odd".into(), "a\0\"b\\".into());
        store.sandbox_insert(&sandbox, None).await.unwrap();
    }
    // A deleted template's id; nothing else writes there.
    let options = SqliteConnectOptions::new().filename(&path);
    let mut beside = options.connect().await.unwrap();
    sqlx::query("INSERT INTO spent_template_ids (id) VALUES ('spent')")
        .execute(&mut beside)
        .await
        .unwrap();
    store
}

#[tokio::test]
async fn every_row_of_every_table_moves() {
    let Some(options) = target().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let from = filled(dir.path()).await;
    let copied = copy(&from, &options).await.unwrap();
    for table in TABLES {
        assert!(copied[table] > 0, "the test has no row of {table}");
    }
    assert!(copied["sandboxes"] > 1203);
    let to = SqlStore::connect(&options, Schema::Check).await.unwrap();
    fixtures::check_all(&to).await;
    assert_eq!(
        to.node_list().await.unwrap(),
        from.node_list().await.unwrap()
    );
    assert_eq!(
        to.join_token_list().await.unwrap(),
        from.join_token_list().await.unwrap()
    );
    let mut filter = casemate_store::SandboxFilter::running(fixture_rows::team().id);
    filter.metadata = [("odd".into(), "a\0\"b\\".into())].into();
    assert_eq!(to.sandbox_count(&filter).await.unwrap(), 1203);
    // Twice is once too often, and changes nothing.
    let again = copy(&from, &options).await.unwrap_err();
    assert!(matches!(again, CopyError::NotEmpty("teams")), "{again:?}");
    assert_eq!(to.sandbox_count(&filter).await.unwrap(), 1203);
}

#[tokio::test]
async fn a_database_in_use_or_without_its_schema_is_left_as_it_is() {
    let Some(used) = TempPostgres::open().await else {
        return;
    };
    let from = TempStore::open().await;
    from.team_insert(&fixture_rows::team()).await.unwrap();
    used.setting_put("name", "value").await.unwrap();
    let refused = copy(&from, used.options()).await.unwrap_err();
    assert!(
        matches!(refused, CopyError::NotEmpty("settings")),
        "{refused:?}"
    );
    assert_eq!(used.team_list().await.unwrap(), [], "it went back");
    let refused = copy(&used, used.options()).await.unwrap_err();
    assert!(matches!(refused, CopyError::NoFile), "{refused:?}");
    let bare = Postgres::shared().unwrap().database(None).await;
    let refused = copy(&from, &bare).await.unwrap_err();
    assert!(matches!(refused, CopyError::Schema(_)), "{refused:?}");
}

/// A table that is new must be in the list.
#[tokio::test]
async fn no_table_is_forgotten() {
    let Some(store) = TempPostgres::open().await else {
        return;
    };
    let mut listed: Vec<&str> = TABLES.to_vec();
    listed.sort_unstable();
    let file = TempStore::open().await;
    let options = SqliteConnectOptions::new().filename(file.path());
    let mut beside = options.connect().await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
         AND name NOT LIKE '_sqlx_%' ORDER BY name",
    )
    .fetch_all(&mut beside)
    .await
    .unwrap();
    assert_eq!(tables, listed);
    let pool =
        casemate_sql::postgres::lazy(store.options(), casemate_sql::postgres::Commits::Synced);
    let tables: Vec<String> = casemate_sql::query_scalar(
        "SELECT CAST(table_name AS TEXT) COLLATE \"C\" FROM information_schema.tables \
         WHERE table_schema = 'public' \
         AND table_name NOT IN ('_sqlx_migrations', 'schema_compat') ORDER BY 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(tables, listed);
}
