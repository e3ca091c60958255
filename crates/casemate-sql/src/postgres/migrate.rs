//! Schemas of PostgreSQL: brought up to date when somebody says so, and checked by all others.
//!
//! Binaries of two versions run beside each other while a cluster is upgraded. So a migration only
//! adds what the binaries before it can do without, and says in `schema_compat` which is the oldest
//! schema whose binaries still work.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection, PgConnection};

use super::{Commits, PostgresOptions, driver};
use crate::Error;
use crate::cause;

/// How long one migrator waits for another.
const OTHERS_WAIT: Duration = Duration::from_secs(120);
/// How long a migration waits for a table that is in use. Others wait behind it, so not for long.
const LOCK_WAIT_MS: u32 = 10_000;
/// All of them together.
const MIGRATIONS_TIME: Duration = Duration::from_secs(3600);
/// The number of the lock: any, as long as it is always the same. ("casemate" in ASCII.)
const LOCK: i64 = 0x6361_7365_6d61_7465;
/// Between two attempts to have it.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Why a schema does not fit this binary.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(
        "the database has schema version {found}, but this version of Casemate knows only {known}: \
         run the version that wrote it or a newer one"
    )]
    Newer { found: i64, known: i64 },
    #[error(
        "the database has schema version {found}, but this version of Casemate needs {known}: run \
         `casemate migrate` first"
    )]
    Older { found: i64, known: i64 },
    #[error(
        "schema version {0} of the database is not the one that was released under this number"
    )]
    Foreign(i64),
    #[error("another process has been migrating the database for {OTHERS_WAIT:?}")]
    Locked,
    #[error("bring the schema of the database up to date")]
    Migrate(#[source] MigrateError),
    #[error("look at the schema of the database")]
    Look(#[source] Error),
}

impl SchemaError {
    /// Whether the same attempt may succeed while nobody changes a setting, the database or the binary.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Newer { .. } | Self::Older { .. } | Self::Foreign(_) => false,
            Self::Locked => true,
            Self::Migrate(
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _),
            ) => cause::is_passing(error),
            Self::Migrate(_) => false,
            Self::Look(error) => error.is_passing(),
        }
    }
}

/// What a database holds of a schema.
struct Schema {
    /// The last version; 0 for none at all.
    found: i64,
    /// The oldest schema whose binaries get along with it.
    oldest: i64,
}

/// Brings the schema up to date, one process at a time. A schema that is newer stays as it is, and
/// is checked as [`check_schema`] does.
pub async fn migrate(options: &PostgresOptions, known: &Migrator) -> Result<(), SchemaError> {
    let long = PostgresOptions {
        statement_timeout: MIGRATIONS_TIME,
        ..options.clone()
    };
    let mut connection = connect(&long).await?;
    let migrated = migrate_alone(&mut connection, options.schema, known).await;
    // The lock ends with the connection, whatever became of it.
    let closed = tokio::time::timeout(options.acquire_timeout, connection.close()).await;
    migrated?;
    match closed {
        Ok(Err(error)) => Err(SchemaError::Look(error.into())),
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

async fn migrate_alone(
    connection: &mut PgConnection,
    schema: Option<&'static str>,
    known: &Migrator,
) -> Result<(), SchemaError> {
    tokio::time::timeout(OTHERS_WAIT, lock(connection))
        .await
        .map_err(|_| SchemaError::Locked)?
        .map_err(looked)?;
    if let Some(name) = schema {
        make_schema(connection, name).await.map_err(looked)?;
    }
    let schema = read(connection, known).await?;
    if schema.found > last(known) {
        return fits(&schema, known);
    }
    sqlx::query("SELECT set_config('lock_timeout', $1, false)")
        .bind(LOCK_WAIT_MS.to_string())
        .execute(&mut *connection)
        .await
        .map_err(looked)?;
    known
        .run_direct(None, connection, false)
        .await
        .map_err(|source| match source {
            MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => {
                SchemaError::Foreign(version)
            }
            source => SchemaError::Migrate(source),
        })
}

/// Fails unless this binary gets along with the schema: its own, or a newer one that was made for it
/// too.
pub async fn check_schema(options: &PostgresOptions, known: &Migrator) -> Result<(), SchemaError> {
    let mut connection = connect(options).await?;
    let schema = tokio::time::timeout(options.statement_timeout, read(&mut connection, known));
    let schema = schema
        .await
        .map_err(|_| timed_out(options.statement_timeout))??;
    fits(&schema, known)
}

fn fits(schema: &Schema, known: &Migrator) -> Result<(), SchemaError> {
    let (found, known) = (schema.found, last(known));
    if found < known {
        return Err(SchemaError::Older { found, known });
    }
    if schema.oldest > known {
        return Err(SchemaError::Newer { found, known });
    }
    Ok(())
}

fn last(known: &Migrator) -> i64 {
    known.iter().map(|one| one.version).max().unwrap_or(0)
}

async fn connect(options: &PostgresOptions) -> Result<PgConnection, SchemaError> {
    // A server has something to say of each table that is there already.
    let driver = driver(options, Commits::Synced).options([("client_min_messages", "warning")]);
    let connecting = PgConnection::connect_with(&driver);
    let connected = tokio::time::timeout(options.acquire_timeout, connecting).await;
    connected
        .map_err(|_| timed_out(options.acquire_timeout))?
        .map_err(looked)
}

/// Asks again and again: who makes an index beside others waits for all statements that have begun,
/// one that waits for this lock among them.
async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT set_config('lock_timeout', '0', false)")
        .execute(&mut *connection)
        .await?;
    loop {
        let is_ours: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut *connection)
            .await?;
        if is_ours {
            return Ok(());
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// Making one needs a right that using one does not: it is asked only where none is.
async fn make_schema(connection: &mut PgConnection, name: &'static str) -> Result<(), sqlx::Error> {
    let is_there: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(name)
        .fetch_one(&mut *connection)
        .await?;
    if !is_there {
        let make = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {name}"));
        sqlx::query(make).execute(connection).await?;
    }
    Ok(())
}

async fn read(connection: &mut PgConnection, known: &Migrator) -> Result<Schema, SchemaError> {
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(looked)?;
    if !is_there {
        return Ok(Schema {
            found: 0,
            oldest: 0,
        });
    }
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success")
            .fetch_all(&mut *connection)
            .await
            .map_err(looked)?;
    for (version, checksum) in &applied {
        let ours = known.iter().find(|one| one.version == *version);
        if ours.is_some_and(|ours| *ours.checksum != **checksum) {
            return Err(SchemaError::Foreign(*version));
        }
    }
    let found = applied
        .iter()
        .map(|(version, _)| *version)
        .max()
        .unwrap_or(0);
    // Before the first migration there is no such table.
    if found == 0 {
        return Ok(Schema { found, oldest: 0 });
    }
    // One that says nothing of itself was made for nobody else.
    let oldest: i64 = sqlx::query_scalar(
        "SELECT COALESCE(MAX(COALESCE(c.oldest_binary_schema, m.version)), 0) \
         FROM _sqlx_migrations m LEFT JOIN schema_compat c ON c.version = m.version",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(looked)?;
    Ok(Schema { found, oldest })
}

fn looked(error: sqlx::Error) -> SchemaError {
    SchemaError::Look(error.into())
}

fn timed_out(limit: Duration) -> SchemaError {
    SchemaError::Look(Error::TimedOut(limit))
}
