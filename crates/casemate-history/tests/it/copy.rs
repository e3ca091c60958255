//! A history moves from a file to PostgreSQL.

use casemate_history::testing::TempHistory;
use casemate_history::{
    Activity, BuildLogEntry, BuildLogPage, BuildLogs, CopyError, EventPage, Events, History,
    LogLevel, Logs, Retention, Samples, Schema, SqlHistory, copy, migrate,
};
use casemate_sql::testing::Postgres;
use casemate_types::SandboxId;

use crate::rows::{SECOND, all, at, event, line, logged, point, sample, team};

#[tokio::test]
async fn all_of_the_past_moves_and_what_comes_is_added() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let options = server.database(None).await;
    let from = TempHistory::open().await;
    let (team, one, other) = (team(), SandboxId::random(), SandboxId::random());
    for round in 0..120 {
        let seconds = round * 5;
        let samples = [sample(&team, &one, seconds), sample(&team, &other, seconds)];
        from.samples_append(&samples).await.unwrap();
    }
    let events: Vec<_> = (0..1203).map(|n| event(&team, &one, n)).collect();
    from.events_append(&events).await.unwrap();
    let lines: Vec<_> = (0..1203)
        .map(|n| line(&team, &other, n, "it's \"a\" \\ line"))
        .collect();
    from.logs_append(&lines).await.unwrap();
    let points: Vec<_> = (0..700).map(|n| point(&team, n)).collect();
    from.activity_append(&points).await.unwrap();
    let logged_lines: Vec<_> = (0..1100)
        .map(|n| BuildLogEntry {
            at: at(n),
            level: LogLevel::Info,
            step: (n % 2 == 0).then(|| n.to_string()),
            message: n.to_string(),
        })
        .collect();
    from.build_logs_append(&team, "build", &logged_lines)
        .await
        .unwrap();

    let refused = copy(&from, &options).await.unwrap_err();
    assert!(matches!(refused, CopyError::Schema(_)), "{refused:?}");
    migrate(&options).await.unwrap();
    let copied = copy(&from, &options).await.unwrap();
    assert_eq!(
        (copied["events"], copied["logs"], copied["build_logs"]),
        (1203, 1203, 1100)
    );
    assert!(copied["young_samples"] > 0 && copied["sample_chunks"] > 0);
    let again = copy(&from, &options).await.unwrap_err();
    assert!(
        matches!(again, CopyError::NotEmpty("subjects")),
        "{again:?}"
    );

    let to = SqlHistory::connect(&options, Schema::Check).await.unwrap();
    let page = EventPage {
        team: team.clone(),
        sandbox: None,
        oldest_first: true,
        until: None,
        offset: 0,
        rows_max: 5000,
    };
    assert_eq!(to.events_read(&page).await.unwrap(), events);
    let read = to.logs_read(&logged(&team, &other)).await.unwrap();
    assert!(read.iter().eq(lines.iter().map(|line| &line.entry)));
    assert_eq!(
        to.activity_read(&team, all(), SECOND).await.unwrap(),
        points
    );
    for sandbox in [&one, &other] {
        let read = to
            .samples_read(&team, sandbox, all(), SECOND)
            .await
            .unwrap();
        assert_eq!(read.len(), 120);
    }
    let page = BuildLogPage {
        team: team.clone(),
        build: "build".into(),
        level_min: LogLevel::Debug,
        offset: 0,
        rows_max: 5000,
    };
    assert_eq!(to.build_logs_page(&page).await.unwrap(), logged_lines);
    // Numbers go on, and what was copied is counted.
    to.samples_append(&[
        sample(&team, &one, 600),
        sample(&team, &SandboxId::random(), 600),
    ])
    .await
    .unwrap();
    to.logs_append(&[line(&team, &SandboxId::random(), 1, "new")])
        .await
        .unwrap();
    to.events_append(&[event(&team, &one, 5000)]).await.unwrap();
    to.build_logs_append(&team, "another", &logged_lines[..1])
        .await
        .unwrap();
    assert_eq!(
        to.samples_read(&team, &one, all(), SECOND)
            .await
            .unwrap()
            .len(),
        121
    );
    let keep = Retention {
        metrics: SECOND * 1_000_000,
        events: SECOND * 1_000_000,
        logs: SECOND * 1_000_000,
        bytes_max: u64::MAX,
    };
    let trimmed = to.trim(at(5000), &keep).await.unwrap();
    assert!((700_000..1_200_000).contains(&trimmed.bytes), "{trimmed:?}");
}

/// A file from before texts had no NUL.
#[tokio::test]
async fn a_text_that_only_the_file_could_keep_moves_too() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let options = server.database(None).await;
    migrate(&options).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.sqlite");
    let from = SqlHistory::open(&path).await.unwrap();
    let (team, sandbox) = (team(), SandboxId::random());
    from.logs_append(&[line(&team, &sandbox, 1, "ab")])
        .await
        .unwrap();
    let beside = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut beside = sqlx::ConnectOptions::connect(&beside).await.unwrap();
    sqlx::query("UPDATE logs SET message = $1")
        .bind("a\0b")
        .execute(&mut beside)
        .await
        .unwrap();
    copy(&from, &options).await.unwrap();
    let to = SqlHistory::connect(&options, Schema::Check).await.unwrap();
    let read = to.logs_read(&logged(&team, &sandbox)).await.unwrap();
    assert_eq!(read[0].message, "a\u{fffd}b");
}
