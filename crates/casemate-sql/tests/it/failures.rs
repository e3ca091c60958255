//! Servers that die, hang, refuse.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use casemate_sql::postgres::{ANSWER_GRACE, Commits, Password, PostgresOptions, TlsMode, connect};
use casemate_sql::testing::{Postgres, Setup, is_enabled};
use casemate_sql::{Error, Pool, query, query_scalar};

use crate::{chain, numbers, put};

/// In which a pool must have come back.
const RECOVERY: Duration = Duration::from_secs(30);

fn impatient(options: PostgresOptions) -> PostgresOptions {
    PostgresOptions {
        statement_timeout: Duration::from_millis(500),
        acquire_timeout: Duration::from_millis(500),
        ..options
    }
}

#[track_caller]
fn check_retryable(error: &Error) {
    let is_right = matches!(
        error,
        Error::Busy(_) | Error::NoConnection | Error::Unavailable(_) | Error::TimedOut(_)
    );
    assert!(is_right, "{}", chain(error));
}

async fn await_recovery(pool: &Pool) {
    let until = Instant::now() + RECOVERY;
    while let Err(error) = query("SELECT 1").execute(pool).await {
        check_retryable(&error);
        assert!(Instant::now() < until, "{}", chain(&error));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_a_killed_server() {
    if !is_enabled() {
        return;
    }
    let server = Postgres::start(&Setup {
        synced: true,
        ..Setup::default()
    });
    let pool = numbers(&impatient(server.database(None).await)).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (pool, is_over) = (pool.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                let mut number = writer;
                while !is_over.load(Ordering::Relaxed) {
                    match put(&pool, number).await {
                        Ok(_) => acknowledged.push(number),
                        Err(error) => check_retryable(&error),
                    }
                    number += 4;
                }
                acknowledged
            })
        })
        .collect();
    let count = async || -> i64 {
        let count = query_scalar("SELECT COUNT(*) FROM numbers").fetch_one(&pool);
        count.await.unwrap()
    };
    while count().await < 100 {}
    server.kill();
    server.restart();
    await_recovery(&pool).await;
    is_over.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    let kept: Vec<i64> = query_scalar("SELECT number FROM numbers")
        .fetch_all(&pool)
        .await
        .unwrap();
    let kept: HashSet<i64> = kept.into_iter().collect();
    assert!(acknowledged.len() >= 100);
    for number in acknowledged {
        assert!(kept.contains(&number), "{number} is forgotten");
    }
}

#[tokio::test]
async fn a_server_that_hangs_fails_calls_in_their_time() {
    if !is_enabled() {
        return;
    }
    let server = Postgres::start(&Setup::default());
    let options = impatient(server.database(None).await);
    let pool = numbers(&options).await;
    put(&pool, 1).await.unwrap();
    server.stop();
    for number in 2..4 {
        let begun = Instant::now();
        let error = put(&pool, number).await.unwrap_err();
        check_retryable(&error);
        let most = options.acquire_timeout + options.statement_timeout + ANSWER_GRACE;
        let took = begun.elapsed();
        assert!(took < most + Duration::from_secs(1), "{took:?}");
    }
    let refused = connect(&options, Commits::Synced).await.unwrap_err();
    check_retryable(&refused);
    server.cont();
    await_recovery(&pool).await;
    put(&pool, 9).await.unwrap();
}

#[tokio::test]
async fn connections_that_the_server_ended_are_replaced() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let options = server.database(None).await;
    let pool = numbers(&options).await;
    put(&pool, 1).await.unwrap();
    let admin = connect(&server.options("postgres"), Commits::Synced).await;
    query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = $1 AND application_name = 'casemate'",
    )
    .bind(&options.database)
    .execute(&admin.unwrap())
    .await
    .unwrap();
    await_recovery(&pool).await;
}

#[tokio::test]
async fn long_statements_end_and_the_connection_is_used_again() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let options = PostgresOptions {
        connections_max: 1,
        ..impatient(server.database(None).await)
    };
    let pool = numbers(&options).await;
    let slow = query("SELECT pg_sleep(60)").execute(&pool).await;
    let error = slow.unwrap_err();
    assert!(matches!(error, Error::Busy(_)), "{}", chain(&error));
    put(&pool, 1).await.unwrap();
    // Also by a caller that went away.
    let slow = query("SELECT pg_sleep(0.3)").execute(&pool);
    tokio::time::timeout(Duration::from_millis(50), slow)
        .await
        .unwrap_err();
    put(&pool, 2).await.unwrap();
}

#[tokio::test]
async fn a_standby_and_a_value_that_does_not_fit_are_told_apart() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let options = PostgresOptions {
        connections_max: 1,
        ..server.database(None).await
    };
    let pool = numbers(&options).await;
    let text = query("SELECT $1").bind("a\0b").execute(&pool).await;
    let error = text.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{}", chain(&error));
    let twice = [put(&pool, 1).await, put(&pool, 1).await];
    assert!(matches!(twice, [Ok(1), Err(Error::Unique(_))]), "{twice:?}");
    query("SET default_transaction_read_only = on")
        .execute(&pool)
        .await
        .unwrap();
    let error = put(&pool, 2).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{}", chain(&error));
    // Its connection is not kept: by a new one the name may lead to another server.
    put(&pool, 2).await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_a_clear_error_without_it() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let wrong = Password::new("very-wrong-password".into());
    let options = server.options("postgres").with_password(Some(wrong));
    let words = chain(&connect(&options, Commits::Synced).await.unwrap_err());
    assert!(words.contains("password authentication failed"), "{words}");
    assert!(!words.contains("very-wrong"), "{words}");
}

/// What people read of an error, with all that lies below it.
fn told(error: &Error) -> String {
    let mut words = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        words.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    words
}

#[tokio::test]
async fn a_cause_is_told_once_and_what_cannot_pass_is_known() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let right = server.options("postgres");
    let refused = async |options: PostgresOptions| {
        let error = connect(&options, Commits::Synced).await.unwrap_err();
        (told(&error), error.is_passing())
    };
    let (words, is_passing) = refused(PostgresOptions {
        port: 1,
        ..right.clone()
    })
    .await;
    assert_eq!(words, "Connection refused (os error 111)");
    assert!(is_passing);
    let (words, is_passing) = refused(PostgresOptions {
        database: "nosuch".into(),
        ..right.clone()
    })
    .await;
    assert_eq!(words, "database \"nosuch\" does not exist");
    assert!(!is_passing);
    let wrong = Password::new("wrong".into());
    let (words, is_passing) = refused(right.clone().with_password(Some(wrong))).await;
    assert!(
        words.starts_with("password authentication failed for user"),
        "{words}"
    );
    assert!(!words.contains(" at line ") && !is_passing, "{words}");
    let (words, is_passing) = refused(PostgresOptions {
        tls: TlsMode::Require,
        ..right
    })
    .await;
    assert!(
        words.starts_with("it has no TLS") && words.contains("?sslmode=disable"),
        "{words}"
    );
    assert!(!is_passing);
}

#[tokio::test]
async fn a_pool_that_gives_nothing_says_that_the_database_may_be_away() {
    if !is_enabled() {
        return;
    }
    let server = Postgres::start(&Setup::default());
    let pool = numbers(&impatient(server.database(None).await)).await;
    server.kill();
    // Those that were open are found to be broken first.
    let until = Instant::now() + RECOVERY;
    loop {
        let error = put(&pool, 1).await.unwrap_err();
        check_retryable(&error);
        if matches!(error, Error::NoConnection) {
            assert!(told(&error).contains("it is away"), "{}", told(&error));
            return;
        }
        assert!(Instant::now() < until, "{}", chain(&error));
    }
}

#[tokio::test]
async fn nobody_who_listens_is_an_error_at_once() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let options = PostgresOptions {
        port: 1,
        ..server.options("postgres")
    };
    let begun = Instant::now();
    let error = connect(&options, Commits::Synced).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{}", chain(&error));
    assert!(begun.elapsed() < Duration::from_secs(2));
}
