use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use casemate_history::{Range, Samples, SqliteHistory};
use casemate_types::{Sample, SandboxId, TeamId, Timestamp, Usage};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// Before and after the youngest samples became chunks, and once more on top of that.
#[tokio::test]
async fn samples_survive_a_process_that_dies_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.sqlite");
    let team = TeamId::parse("0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162").unwrap();
    let sandbox = SandboxId::random();
    let mut written = 0;
    for count in [3, 100, 7] {
        let history = SqliteHistory::open(&path).await.unwrap();
        for _ in 0..count {
            let sample = Sample {
                sandbox: sandbox.clone(),
                team: team.clone(),
                at: at(written * 5),
                usage: Usage {
                    disk_used_bytes: u64::try_from(written).unwrap(),
                    ..Usage::default()
                },
            };
            history.samples_append(&[sample]).await.unwrap();
            written += 1;
        }
        drop(history);
        let again = SqliteHistory::open(&path).await.unwrap();
        let all = Range {
            from: at(0),
            to: at(10_000),
        };
        let step = Duration::from_secs(1);
        let read = again.samples_read(&team, &sandbox, all, step).await;
        let found: Vec<_> = read
            .unwrap()
            .iter()
            .map(|point| point.usage.disk_used_bytes)
            .collect();
        let expected: Vec<_> = (0..u64::try_from(written).unwrap()).collect();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn the_file_is_its_owners_alone_and_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.sqlite");
    SqliteHistory::open(&path).await.unwrap().close().await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(
        &path,
        "not a database, and longer than a header of one".repeat(100),
    )
    .unwrap();
    let refused = SqliteHistory::open(&path).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("history.sqlite"), "{refused}");
}
