//! What is PostgreSQL's alone: several servers, one history.

use casemate_history::testing::{TempHistory, TempPostgresHistory};
use casemate_history::{
    Activity, ConnectError, Events, History, Logs, Retention, Samples, Schema, SqlHistory, migrate,
};
use casemate_sql::postgres::SchemaError;
use casemate_sql::testing::Postgres;
use casemate_types::SandboxId;

use crate::rows::{SECOND, all, at, event, line, logged, point, sample, team};

/// Both write of the same sandboxes for longer than samples stay young, and each reads it all.
#[tokio::test]
async fn what_one_server_appends_the_others_read() {
    let Some(one) = TempPostgresHistory::open().await else {
        return;
    };
    let other = one.beside().await;
    let (team, sandboxes) = (team(), [(); 70].map(|()| SandboxId::random()));
    for round in 0..100 {
        let (a, b) = (round * 10, round * 10 + 5);
        let of = |seconds| -> Vec<_> {
            let each = sandboxes.iter().map(|of| sample(&team, of, seconds));
            each.collect()
        };
        let (a, b) = (of(a), of(b));
        let (a, b) = tokio::join!(one.samples_append(&a), other.samples_append(&b));
        a.unwrap();
        b.unwrap();
    }
    for reader in [&one, &other] {
        for sandbox in &sandboxes {
            let read = reader.samples_read(&team, sandbox, all(), SECOND).await;
            let found: Vec<_> = read
                .unwrap()
                .iter()
                .map(|of| of.usage.disk_used_bytes)
                .collect();
            assert_eq!(found, (0..200).map(|n| n * 5).collect::<Vec<_>>());
        }
        let latest = reader.samples_latest(&team, &sandboxes).await.unwrap();
        assert_eq!(latest.len(), 70);
        assert!(latest.iter().all(|of| of.at == at(995)));
    }
    let lines: Vec<_> = (0..50)
        .map(|n| line(&team, &sandboxes[0], n, "one"))
        .collect();
    let others: Vec<_> = (0..50)
        .map(|n| line(&team, &sandboxes[0], n, "other"))
        .collect();
    let (a, b) = tokio::join!(one.logs_append(&lines), other.logs_append(&others));
    a.unwrap();
    b.unwrap();
    let query = logged(&team, &sandboxes[0]);
    assert_eq!(one.logs_read(&query).await.unwrap().len(), 100);
}

/// Sums of what rows take follow the rows.
#[tokio::test]
async fn servers_that_trim_at_once_count_right() {
    let Some(one) = TempPostgresHistory::open().await else {
        return;
    };
    let other = one.beside().await;
    let (team, sandbox) = (team(), SandboxId::random());
    let keep = |seconds: u32| Retention {
        metrics: SECOND * seconds,
        events: SECOND * seconds,
        logs: SECOND * seconds,
        bytes_max: u64::MAX,
    };
    let empty = one.trim(at(0), &keep(1)).await.unwrap();
    assert_eq!(empty.bytes, 0);
    let large = "x".repeat(1000);
    for seconds in (0..36_000).step_by(600) {
        let lines = [line(&team, &sandbox, seconds, &large)];
        one.logs_append(&lines).await.unwrap();
        other
            .events_append(&[event(&team, &sandbox, seconds)])
            .await
            .unwrap();
        one.activity_append(&[point(&team, seconds)]).await.unwrap();
        other
            .samples_append(&[sample(&team, &sandbox, seconds)])
            .await
            .unwrap();
    }
    let keep_all = keep(1_000_000);
    let all = one.trim(at(36_000), &keep_all).await.unwrap();
    assert!((60_000..200_000).contains(&all.bytes), "{all:?}");
    let half = keep(18_000);
    let (now, later) = (at(36_000), at(36_000));
    let (a, b) = tokio::join!(one.trim(now, &half), other.trim(later, &half));
    let gone = a.unwrap().rows + b.unwrap().rows;
    assert_eq!(gone, 4 * 30, "each row is forgotten by one of them");
    let left = other.trim(at(36_000), &half).await.unwrap();
    let expected = all.bytes / 2;
    assert!(
        left.bytes.abs_diff(expected) < expected / 20,
        "{left:?} of {all:?}"
    );
    let none = one.trim(at(100_000), &keep(1)).await.unwrap();
    assert_eq!(none.bytes, 0);
}

#[tokio::test]
async fn one_strange_text_costs_no_batch() {
    let (file, server) = (TempHistory::open().await, TempPostgresHistory::open().await);
    let both = server
        .iter()
        .map(TempPostgresHistory::share)
        .chain([file.share()]);
    for history in both {
        let (team, sandbox) = (team(), SandboxId::random());
        let lines = [
            line(&team, &sandbox, 1, "a\0b"),
            line(&team, &sandbox, 2, "plain"),
        ];
        history.logs_append(&lines).await.unwrap();
        history
            .events_append(&[event(&team, &sandbox, 1)])
            .await
            .unwrap();
        let mut query = logged(&team, &sandbox);
        let read = history.logs_read(&query).await.unwrap();
        assert_eq!(
            (&*read[0].message, &*read[1].message),
            ("a\u{fffd}b", "plain")
        );
        assert_eq!(read[0].fields, lines[0].entry.fields);
        query.search = Some("a\0".into());
        assert_eq!(history.logs_read(&query).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_history_without_its_schema_is_refused_unless_it_may_be_made() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let options = server.database(None).await;
    let refused = SqlHistory::connect(&options, Schema::Check)
        .await
        .map(drop)
        .unwrap_err();
    assert!(
        matches!(
            refused,
            ConnectError::Schema(SchemaError::Older { found: 0, .. })
        ),
        "{refused:?}"
    );
    let (a, b) = tokio::join!(
        migrate(&options),
        SqlHistory::connect(&options, Schema::Migrate)
    );
    a.unwrap();
    b.unwrap().close().await;
    let history = SqlHistory::connect(&options, Schema::Check).await.unwrap();
    history
        .samples_append(&[sample(&team(), &SandboxId::random(), 1)])
        .await
        .unwrap();
}
