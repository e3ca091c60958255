//! Files of earlier versions.

use std::borrow::Cow;

use casemate_history::{Samples, SqlHistory};
use casemate_types::SandboxId;
use sqlx::ConnectOptions;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;

use crate::rows::{SECOND, all, at, sample, team};

/// A batch as schema 2 had it: a version, then each column's difference from the row before.
fn batch(rows: &[[i64; 9]]) -> Vec<u8> {
    let mut bytes = vec![1];
    let mut before = [0; 9];
    for row in rows {
        for (value, before) in row.iter().zip(before) {
            let step = value - before;
            let mut zigzag = ((step << 1) ^ (step >> 63)).cast_unsigned();
            while zigzag >= 0x80 {
                bytes.push(u8::try_from(zigzag & 0x7f).unwrap() | 0x80);
                zigzag >>= 7;
            }
            bytes.push(u8::try_from(zigzag).unwrap());
        }
        before = *row;
    }
    bytes
}

#[tokio::test]
async fn a_file_of_the_schema_before_opens_with_all_its_samples() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.sqlite");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut file = options.connect().await.unwrap();
    let known: Migrator = sqlx::migrate!("./migrations/sqlite");
    let earlier: Vec<_> = known.iter().filter(|m| m.version < 3).cloned().collect();
    let earlier = Migrator {
        migrations: Cow::Owned(earlier),
        ..known
    };
    earlier.run(&mut file).await.unwrap();
    let (team, sandbox) = (team(), SandboxId::random());
    sqlx::query("INSERT INTO subjects (number, sandbox, team, last_at) VALUES (7, $1, $2, $3)")
        .bind(sandbox.as_str())
        .bind(team.as_str())
        .bind(at(20).as_millisecond())
        .execute(&mut file)
        .await
        .unwrap();
    for seconds in [0, 10] {
        let row = |seconds| [7, at(seconds).as_millisecond(), 2, 0, 0, 0, 0, seconds, 0];
        sqlx::query("INSERT INTO sample_batches (samples) VALUES ($1)")
            .bind(batch(&[row(seconds), row(seconds + 5)]))
            .execute(&mut file)
            .await
            .unwrap();
    }
    sqlx::Connection::close(file).await.unwrap();
    for opened in 0..2 {
        let history = SqlHistory::open(&path).await.unwrap();
        if opened == 1 {
            history
                .samples_append(&[sample(&team, &sandbox, 20)])
                .await
                .unwrap();
        }
        let read = history
            .samples_read(&team, &sandbox, all(), SECOND)
            .await
            .unwrap();
        let found: Vec<_> = read.iter().map(|of| of.usage.disk_used_bytes).collect();
        assert_eq!(found, [0, 5, 10, 15, 20][..4 + opened]);
        history.close().await;
    }
}
