//! The store takes nothing for a while: its disk is full.

use std::time::Duration;

use casemate_types::SandboxState;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;

use super::cluster::Cluster;
use crate::world::until;

/// No resume is written down, and each attempt is counted.
const FULL: &str = "CREATE TABLE attempts (number INTEGER PRIMARY KEY); \
     CREATE TRIGGER full BEFORE UPDATE ON sandboxes WHEN new.state = 'running' BEGIN \
     INSERT INTO attempts VALUES (NULL); SELECT RAISE(FAIL, 'full'); END";
const ROOM: &str = "DROP TRIGGER full";
const ATTEMPTS: &str = "SELECT COUNT(*) FROM attempts";

async fn open(cluster: &Cluster) -> SqlitePool {
    let path = cluster.file.as_ref().unwrap().path();
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(30));
    SqlitePool::connect_with(options).await.unwrap()
}

/// The node said once that it runs; who heard that tries until it is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_resume_is_written_down_once_there_is_room_again() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.create(0).await;
    let path = format!("/sandboxes/{sandbox}");
    let paused = cluster.api(0, "POST", &format!("{path}/pause"));
    assert_eq!(paused.send().await.status, 204);
    let file = open(&cluster).await;
    sqlx::raw_sql(FULL).execute(&file).await.unwrap();

    let connect = cluster.api(1, "POST", &format!("{path}/connect"));
    let refused = connect.json(r#"{"timeout":600}"#).send().await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert_eq!(cluster.node.kept(&sandbox), None, "it runs all the same");
    // The client's, the first of whoever heard of it, and those after that.
    until("it is tried again and again", || async {
        let attempts = sqlx::query_scalar::<_, i64>(ATTEMPTS).fetch_one(&file);
        attempts.await.unwrap() >= 4
    })
    .await;
    let state = cluster.state_of(&sandbox).await;
    assert!(
        matches!(state, Some(SandboxState::Paused { .. })),
        "{state:?}"
    );

    sqlx::raw_sql(ROOM).execute(&file).await.unwrap();
    until("it is written down", || async {
        let state = cluster.state_of(&sandbox).await;
        matches!(state, Some(SandboxState::Running { .. }))
    })
    .await;
    for server in 0..2 {
        let connect = cluster.api(server, "POST", &format!("{path}/connect"));
        let connected = connect.json(r#"{"timeout":600}"#).send().await;
        assert_eq!(connected.status, 200, "{}", connected.text);
    }
}
