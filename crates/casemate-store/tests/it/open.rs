//! Opening, reopening, refusing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use casemate_store::testing::{TempStore, build_ready};
use casemate_store::{
    Idempotency, KeyClaim, OpenError, Settings, SqliteStore, Store, StoreError, Teams, Templates,
};
use casemate_types::{TeamId, Timestamp};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use crate::fixture_rows;

/// A connection beside the store's own.
async fn beside(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    options.connect().await.unwrap()
}

async fn change(path: &Path, sql: &'static str) {
    let mut db = beside(path).await;
    sqlx::query(sql).execute(&mut db).await.unwrap();
    db.close().await.unwrap();
}

fn claim(team: &TeamId, key: &str) -> KeyClaim {
    KeyClaim {
        team: team.clone(),
        key: key.into(),
        owner: "me".into(),
        at: Timestamp::now(),
    }
}

#[tokio::test]
async fn rows_outlive_the_store() {
    let temp = TempStore::open().await;
    temp.team_insert(&fixture_rows::team()).await.unwrap();
    temp.close().await;
    assert!(temp.ping().await.is_err(), "a closed store answers nothing");
    let again = SqliteStore::open(&temp.path()).await.unwrap();
    let team = fixture_rows::team();
    assert_eq!(again.team_by_id(&team.id).await.unwrap(), Some(team));
    again.close().await;
}

/// What `kill -9` leaves: the files as they are at that moment, the log not written back.
#[tokio::test]
async fn rows_outlive_a_killed_process() {
    let temp = TempStore::open().await;
    let team = fixture_rows::team();
    temp.team_insert(&team).await.unwrap();
    let claim = claim(&team.id, "k");
    temp.idempotency_begin(&claim, &[0; 32]).await.unwrap();
    let left = tempfile::tempdir().unwrap();
    for name in ["store.sqlite", "store.sqlite-wal"] {
        let from = temp.path().with_file_name(name);
        std::fs::copy(from, left.path().join(name)).unwrap();
    }
    let again = SqliteStore::open(&left.path().join("store.sqlite"))
        .await
        .unwrap();
    assert_eq!(again.team_by_id(&team.id).await.unwrap(), Some(team));
    assert_eq!(
        again
            .idempotency_orphan("another", Duration::ZERO)
            .await
            .unwrap(),
        1
    );
    again.close().await;
}

#[tokio::test]
async fn a_build_without_a_builder_is_ready() {
    let temp = TempStore::open().await;
    let (team, at) = (fixture_rows::team(), fixture_rows::at(9));
    temp.team_insert(&team).await.unwrap();
    let build = build_ready(&*temp.share(), &team, "mine", &["default"], at).await;
    let found = temp.build_by_id(&build.id).await.unwrap();
    assert_eq!(found, Some(build));
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    let temp = TempStore::open().await;
    temp.setting_put("name", "value").await.unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(temp.path().parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", entry.path());
        seen += 1;
    }
    assert!(seen >= 2, "the file and its log");
}

#[tokio::test]
async fn a_newer_schema_is_refused_in_words() {
    let temp = TempStore::open().await;
    temp.close().await;
    change(
        &temp.path(),
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'of the future', 1, x'00', 0)",
    )
    .await;
    let before = std::fs::read(temp.path()).unwrap();
    let refused = SqliteStore::open(&temp.path()).await.err().unwrap();
    assert!(
        matches!(refused, OpenError::NewerSchema { found: 9999, .. }),
        "{refused:?}"
    );
    let words = refused.to_string();
    assert!(words.contains("schema version 9999"), "{words}");
    assert!(words.contains("newer version"), "{words}");
    assert_eq!(std::fs::read(temp.path()).unwrap(), before);
}

#[tokio::test]
async fn a_schema_of_another_origin_is_refused() {
    let temp = TempStore::open().await;
    temp.close().await;
    let forged = "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1";
    change(&temp.path(), forged).await;
    let refused = SqliteStore::open(&temp.path()).await.err().unwrap();
    assert!(
        matches!(refused, OpenError::ForeignSchema { version: 1, .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("store.sqlite");
    let words = "no database, but many words of text. ".repeat(100);
    std::fs::write(&text, &words).unwrap();
    let refused = SqliteStore::open(&text).await.err().unwrap();
    assert!(matches!(refused, OpenError::Open { .. }), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&text).unwrap(), words);

    let nowhere = dir.path().join("missing").join("store.sqlite");
    let refused = SqliteStore::open(&nowhere).await.err().unwrap();
    assert!(matches!(refused, OpenError::Create { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_row_that_no_version_wrote_is_named() {
    let temp = TempStore::open().await;
    let team = fixture_rows::team();
    temp.team_insert(&team).await.unwrap();
    change(&temp.path(), "UPDATE teams SET standing = 'splendid'").await;
    let refused = temp.team_by_id(&team.id).await.unwrap_err();
    assert!(!refused.is_retryable());
    match refused {
        StoreError::Corrupt { what, id, source } => {
            assert_eq!((what, id), ("team", team.id.to_string()));
            assert!(source.to_string().contains("splendid"), "{source}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn another_writer_that_stays_is_busy_not_broken() {
    let temp = TempStore::open().await;
    let mut other = beside(&temp.path()).await;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let nobody = TeamId::parse("0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162").unwrap();
    let claimed = claim(&nobody, "k");
    let (durable, fast, read) = tokio::join!(
        temp.setting_put("name", "value"),
        temp.idempotency_abandon(&claimed),
        temp.setting_by_name("name"),
    );
    for refused in [durable.unwrap_err(), fast.unwrap_err()] {
        assert!(matches!(refused, StoreError::Busy(_)), "{refused:?}");
        assert!(refused.is_retryable());
    }
    assert_eq!(read.unwrap(), None, "readers do not wait");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    temp.setting_put("name", "value").await.unwrap();
}

/// Without it a create would do that, and wait for the disk. (The file is far from the length at
/// which a commit does it after all.)
#[tokio::test]
async fn the_log_is_written_back_beside_the_writers() {
    let temp = TempStore::open().await;
    let team = fixture_rows::team();
    temp.team_insert(&team).await.unwrap();
    let file_len = || std::fs::metadata(temp.path()).unwrap().len();
    let before = file_len();
    for number in 0..600 {
        let claim = claim(&team.id, &format!("key-{number}"));
        temp.idempotency_begin(&claim, &[0; 32]).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while file_len() == before {
        assert!(Instant::now() < deadline, "nothing was written back");
        temp.ping().await.unwrap();
    }
}
