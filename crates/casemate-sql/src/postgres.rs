//! Connections to PostgreSQL 14 and later.
//!
//! Each call has an end: the server ends statements at [`PostgresOptions::statement_timeout`], and
//! where it does not answer at all, the call gives up [`ANSWER_GRACE`] later and its connection is
//! closed. A connection that rested is tried before it is used again, so that the pool comes back
//! by itself after the server was away.

mod migrate;
mod options;

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{Connection, PgConnection, PgPool};

use crate::{Error, Pool};

pub use migrate::{SchemaError, check_schema, migrate};
pub use options::{
    CONNECTIONS_MAX, OptionsError, Password, PostgresOptions, TIMEOUT_MAX, TlsMode, URL_BYTES_MAX,
};

/// Beyond the server's own limit of a statement, for the way there and back.
pub const ANSWER_GRACE: Duration = Duration::from_secs(2);
/// One that rested longer than this is tried before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// The server ends a transaction of a client that says nothing more, and its locks with it.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Statements that each connection keeps prepared: more than there are.
const STATEMENTS_KEPT: usize = 400;

/// Connections to one database.
#[derive(Debug, Clone)]
pub struct PostgresPool {
    pub(crate) connections: PgPool,
    /// How long a call may take, and a transaction as a whole.
    pub(crate) call_timeout: Duration,
}

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commits {
    /// The server's disk: what was acknowledged is there after a crash of it.
    Synced,
    /// Nothing: the last half second may be lost with the server.
    Soon,
}

/// Runs a call of sqlx on a pooled connection. One that has no answer leaves its connection in an
/// unknown state, and closes it; one that is refused because nothing is written there closes it as well:
/// after a fail-over the name leads to another server, and the connection would stay at the former one.
macro_rules! bounded {
    ($connection:expr, $limit:expr, |$c:ident| $call:expr) => {{
        let limit = $limit;
        let answer = {
            let $c = &mut *$connection;
            tokio::time::timeout(limit, $call).await
        };
        match answer {
            Ok(answer) => {
                if crate::postgres::takes_no_writes(&answer) {
                    $connection.close_on_drop();
                }
                answer.map_err(crate::Error::from)
            }
            Err(_) => {
                $connection.close_on_drop();
                Err(crate::Error::TimedOut(limit))
            }
        }
    }};
}
pub(crate) use bounded;

/// `read_only_sql_transaction`: a standby, or one that is being retired.
pub(crate) fn takes_no_writes<T>(answer: &Result<T, sqlx::Error>) -> bool {
    let Err(sqlx::Error::Database(error)) = answer else {
        return false;
    };
    error.code().is_some_and(|code| code == "25006")
}

/// Opens a pool and makes sure that the database lets us in.
pub async fn connect(options: &PostgresOptions, commits: Commits) -> Result<Pool, Error> {
    let pool = lazy(options, commits);
    let first = tokio::time::timeout(options.acquire_timeout, async {
        // Not by the pool, which tries again while nobody listens and says only that time ran out.
        let connection = PgConnection::connect_with(&driver(options, commits)).await?;
        connection.close().await
    });
    match first.await {
        Ok(connected) => connected?,
        Err(_) => return Err(Error::TimedOut(options.acquire_timeout)),
    }
    Ok(pool)
}

/// One connection beside all pools, whose statements take as long as they take.
pub async fn connect_alone(options: &PostgresOptions) -> Result<PgConnection, Error> {
    let patient = PostgresOptions {
        statement_timeout: TIMEOUT_MAX,
        ..options.clone()
    };
    let driver = driver(&patient, Commits::Synced);
    let connecting = PgConnection::connect_with(&driver);
    match tokio::time::timeout(options.acquire_timeout, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(Error::TimedOut(options.acquire_timeout)),
    }
}

/// A pool whose first call connects.
pub fn lazy(options: &PostgresOptions, commits: Commits) -> Pool {
    let connections = PgPoolOptions::new()
        .max_connections(options.connections_max)
        .acquire_timeout(options.acquire_timeout)
        .idle_timeout(options.idle_timeout)
        .max_lifetime(options.connection_lifetime)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TRUSTED_FOR {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(driver(options, commits));
    Pool::Postgres(PostgresPool {
        connections,
        call_timeout: options.statement_timeout + ANSWER_GRACE,
    })
}

fn driver(options: &PostgresOptions, commits: Commits) -> PgConnectOptions {
    let millis = |limit: Duration| limit.as_millis().to_string();
    let commit = match commits {
        Commits::Synced => "on",
        Commits::Soon => "off",
    };
    let mut driver = PgConnectOptions::new_without_pgpass()
        .host(&options.host)
        .port(options.port)
        .username(&options.user)
        .password(options.password.as_ref().map_or("", Password::expose))
        .database(&options.database)
        .ssl_mode(match options.tls {
            TlsMode::Disable => PgSslMode::Disable,
            TlsMode::Prefer => PgSslMode::Prefer,
            TlsMode::Require => PgSslMode::Require,
            TlsMode::VerifyCa => PgSslMode::VerifyCa,
            TlsMode::VerifyFull => PgSslMode::VerifyFull,
        })
        .application_name("casemate")
        .statement_cache_capacity(STATEMENTS_KEPT)
        .options([
            ("synchronous_commit", commit.to_owned()),
            ("statement_timeout", millis(options.statement_timeout)),
            ("lock_timeout", millis(options.statement_timeout)),
            ("idle_in_transaction_session_timeout", millis(SILENCE_MAX)),
            // Single statements are as the server's default has it otherwise.
            ("default_transaction_isolation", "read committed".to_owned()),
        ]);
    if options.host.starts_with('/') {
        driver = driver.socket(&options.host);
    }
    if let Some(schema) = options.schema {
        driver = driver.options([("search_path", schema)]);
    }
    if let Some(roots) = &options.tls_roots {
        driver = driver.ssl_root_cert(roots);
    }
    driver
}
