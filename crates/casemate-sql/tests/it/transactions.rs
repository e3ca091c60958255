//! What is right on one writer is right with many.

use std::time::Duration;

use casemate_sql::postgres::{Commits, PostgresOptions, connect};
use casemate_sql::testing::Postgres;
use casemate_sql::{Error, Pool, Value, query, query_as, query_scalar, sql, transaction};

use crate::{numbers, put};

async fn count(pool: &Pool) -> i64 {
    let count = query_scalar("SELECT COUNT(*) FROM numbers");
    count.fetch_one(pool).await.unwrap()
}

/// Each looks first whether there is room.
async fn put_if_room(pool: &Pool, number: i64, room: i64) -> Result<bool, Error> {
    transaction!(pool, |error| error, async |tx| {
        let count: i64 = query_scalar("SELECT COUNT(*) FROM numbers")
            .fetch_one(&mut *tx)
            .await?;
        if count >= room {
            return Ok(false);
        }
        query("INSERT INTO numbers (number) VALUES ($1)")
            .bind(number)
            .execute(&mut *tx)
            .await?;
        Ok(true)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_servers_do_not_exceed_what_each_looks_at() {
    const ROOM: i64 = 5;
    let Some(server) = Postgres::shared() else {
        return;
    };
    let options = server.database(None).await;
    let first = numbers(&options).await;
    let second = connect(&options, Commits::Synced).await.unwrap();
    let racers: Vec<_> = (0..32)
        .map(|number| {
            let pool = if number % 2 == 0 {
                first.clone()
            } else {
                second.clone()
            };
            tokio::spawn(async move { put_if_room(&pool, number, ROOM).await })
        })
        .collect();
    let mut done = 0;
    for racer in racers {
        done += i64::from(racer.await.unwrap().unwrap());
    }
    assert_eq!((done, count(&first).await), (ROOM, ROOM));
}

#[tokio::test]
async fn what_is_discarded_fails_or_is_dropped_was_never_written() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let options = PostgresOptions {
        connections_max: 1,
        ..server.database(None).await
    };
    let pool = numbers(&options).await;
    let discarded: Result<(), Error> = transaction!(pool, |error| error, async |tx| {
        query("INSERT INTO numbers (number) VALUES (1)")
            .execute(&mut *tx)
            .await?;
        tx.discard();
        Ok(())
    });
    discarded.unwrap();
    assert_eq!(count(&pool).await, 0);

    let failed: Result<(), Error> = transaction!(pool, |error| error, async |tx| {
        query("INSERT INTO numbers (number) VALUES (1)")
            .execute(&mut *tx)
            .await?;
        query("INSERT INTO numbers (number) VALUES (1)")
            .execute(&mut *tx)
            .await?;
        Ok(())
    });
    assert!(matches!(failed, Err(Error::Unique(_))), "{failed:?}");
    assert_eq!(count(&pool).await, 0);

    let hidden: Result<(), Error> = transaction!(pool, |error| error, async |tx| {
        query("INSERT INTO numbers (number) VALUES (1)")
            .execute(&mut *tx)
            .await?;
        let twice = query("INSERT INTO numbers (number) VALUES (1)").execute(&mut *tx);
        assert!(twice.await.is_err());
        Ok(())
    });
    assert!(matches!(hidden, Err(Error::Unavailable(_))), "{hidden:?}");
    assert_eq!(count(&pool).await, 0);

    let slow = async {
        let slow: Result<(), Error> = transaction!(pool, |error| error, async |tx| {
            query("INSERT INTO numbers (number) VALUES (1)")
                .execute(&mut *tx)
                .await?;
            std::future::pending::<()>().await;
            Ok(())
        });
        slow
    };
    let dropped = tokio::time::timeout(Duration::from_millis(200), slow).await;
    dropped.unwrap_err();
    assert_eq!(count(&pool).await, 0);
    put(&pool, 1).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_sees_one_moment_and_writes_nothing() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let pool = numbers(&server.database(None).await).await;
    let mut moment = pool.snapshot().await.unwrap();
    let look = || query_scalar::<i64>("SELECT COUNT(*) FROM numbers");
    assert_eq!(look().fetch_one(&mut moment).await.unwrap(), 0);
    put(&pool, 1).await.unwrap();
    assert_eq!(look().fetch_one(&mut moment).await.unwrap(), 0);
    moment.done().await.unwrap();
    let mut moment = pool.snapshot().await.unwrap();
    query("INSERT INTO numbers (number) VALUES (2)")
        .execute(&mut moment)
        .await
        .unwrap_err();
}

#[tokio::test]
async fn values_come_back_as_they_went_in() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let pool = connect(&server.options("postgres"), Commits::Soon)
        .await
        .unwrap();
    let level: String = query_scalar("SELECT current_setting('synchronous_commit')")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(level, "off");
    let row: (Option<String>, Option<i64>, bool, Vec<u8>, Option<String>) =
        query_as("SELECT $1, $2, $3, $4, $5")
            .bind("text")
            .bind(None::<i64>)
            .bind(true)
            .bind([1_u8, 0].as_slice())
            .bind(None::<String>)
            .fetch_one(&pool)
            .await
            .unwrap();
    let expected = (Some("text".into()), None, true, vec![1, 0], None);
    assert_eq!(row, expected);
    let found: Vec<String> = query_scalar(sql!(
        "SELECT n.value FROM ",
        items("$1", "n"),
        " WHERE n.value",
        is_in("$2"),
        " AND n.value",
        not_in("$3")
    ))
    .bind(r#"{"v":1,"is":["a","b","c"]}"#)
    .bind(Value::texts(["a", "b", "x"]))
    .bind(Value::texts(["b"]))
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(found, ["a"]);
}
