//! Migrations: two at once, newer and older ones, ones of others.

use casemate_sql::postgres::{
    Commits, PostgresOptions, SchemaError, check_schema, connect, migrate,
};
use casemate_sql::query;
use casemate_sql::testing::Postgres;
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

const GROUND: &str = "CREATE TABLE schema_compat (version BIGINT PRIMARY KEY, \
    oldest_binary_schema BIGINT NOT NULL); INSERT INTO schema_compat VALUES (1, 1)";

/// The schema of a version of ours, whose last migration works with the binaries of one before, if it
/// says so.
fn known(version: i64, last: &'static str) -> Migrator {
    let migrations = (1..=version).map(|number| {
        let sql = match number {
            1 => GROUND,
            _ if number == version => last,
            _ => "INSERT INTO schema_compat VALUES (2, 1)",
        };
        let kind = MigrationType::Simple;
        Migration::new(number, "of a test".into(), kind, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

async fn empty() -> Option<PostgresOptions> {
    Some(Postgres::shared()?.database(None).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_migrators_one_waits() {
    let Some(options) = empty().await else { return };
    let slow = "CREATE TABLE once (id BIGINT); SELECT pg_sleep(0.5); \
                INSERT INTO schema_compat VALUES (2, 1)";
    let (a, b, c) = (known(2, slow), known(2, slow), known(2, slow));
    let (a, b, c) = tokio::join!(
        migrate(&options, &a),
        migrate(&options, &b),
        migrate(&options, &c)
    );
    a.unwrap();
    b.unwrap();
    c.unwrap();
    check_schema(&options, &known(2, slow)).await.unwrap();
}

#[tokio::test]
async fn a_schema_changes_only_when_it_is_told_to() {
    let Some(options) = empty().await else { return };
    let last = "INSERT INTO schema_compat VALUES (2, 1)";
    let refused = check_schema(&options, &known(1, "")).await.unwrap_err();
    assert!(
        matches!(refused, SchemaError::Older { found: 0, known: 1 }),
        "{refused:?}"
    );
    migrate(&options, &known(1, "")).await.unwrap();
    let refused = check_schema(&options, &known(2, last)).await.unwrap_err();
    assert!(
        matches!(refused, SchemaError::Older { found: 1, known: 2 }),
        "{refused:?}"
    );
    assert!(
        refused.to_string().contains("casemate migrate"),
        "{refused}"
    );
    migrate(&options, &known(2, last)).await.unwrap();
    migrate(&options, &known(2, last)).await.unwrap();
    check_schema(&options, &known(2, last)).await.unwrap();
}

#[tokio::test]
async fn a_binary_gets_along_with_a_newer_schema_that_was_made_for_it() {
    let Some(options) = empty().await else { return };
    let last = "INSERT INTO schema_compat VALUES (3, 2)";
    migrate(&options, &known(3, last)).await.unwrap();
    let two = known(2, "INSERT INTO schema_compat VALUES (2, 1)");
    check_schema(&options, &two).await.unwrap();
    migrate(&options, &two).await.unwrap();
    for refused in [
        check_schema(&options, &known(1, "")).await.unwrap_err(),
        migrate(&options, &known(1, "")).await.unwrap_err(),
    ] {
        assert!(
            matches!(refused, SchemaError::Newer { found: 3, known: 1 }),
            "{refused:?}"
        );
    }
    let silent = empty().await.unwrap();
    migrate(&silent, &known(2, "CREATE TABLE new (id BIGINT)"))
        .await
        .unwrap();
    let refused = check_schema(&silent, &known(1, "")).await.unwrap_err();
    assert!(matches!(refused, SchemaError::Newer { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_schema_of_others_is_refused() {
    let Some(options) = empty().await else { return };
    migrate(&options, &known(1, "")).await.unwrap();
    let pool = connect(&options, Commits::Synced).await.unwrap();
    query("UPDATE _sqlx_migrations SET checksum = '\\x00'")
        .execute(&pool)
        .await
        .unwrap();
    for refused in [
        check_schema(&options, &known(1, "")).await.unwrap_err(),
        migrate(&options, &known(1, "")).await.unwrap_err(),
    ] {
        assert!(matches!(refused, SchemaError::Foreign(1)), "{refused:?}");
    }
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing() {
    let Some(options) = empty().await else { return };
    let broken = known(2, "CREATE TABLE half (id BIGINT); SELECT 1 / 0");
    let refused = migrate(&options, &broken).await.unwrap_err();
    assert!(matches!(refused, SchemaError::Migrate(_)), "{refused:?}");
    check_schema(&options, &known(1, "")).await.unwrap();
    let again = known(
        2,
        "CREATE TABLE half (id BIGINT); INSERT INTO schema_compat VALUES (2, 1)",
    );
    migrate(&options, &again).await.unwrap();
}
