//! Connecting to PostgreSQL: the schema, who may change it, and the pool.

use casemate_sql::Error;
use casemate_sql::postgres::{self, Commits, OptionsError, PostgresOptions, SchemaError};
use sqlx::migrate::Migrator;

use super::SqlHistory;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/postgres");

/// The schema with all tables of a history, in the database of the store.
pub const SCHEMA: &str = "casemate_history";
/// Connections of a history, beside those of the store: it must not take what a create waits for.
pub const CONNECTIONS_MAX: u32 = 4;

/// What becomes of a schema that is older than this binary's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// It is refused: one of several servers does not change what the others use.
    Check,
    /// It is brought up to date.
    Migrate,
}

/// Why a PostgreSQL database cannot be used as a history. No text of it has the password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("settings of the database")]
    Options(#[from] OptionsError),
    #[error("cannot connect to database {database} at {place} for the history")]
    Connect {
        place: String,
        database: String,
        #[source]
        source: Error,
    },
    #[error("the history (schema {SCHEMA} of the database)")]
    Schema(#[from] SchemaError),
}

impl ConnectError {
    /// Whether the same attempt may succeed while nobody changes a setting, the database or the binary.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Options(_) => false,
            Self::Connect { source, .. } => source.is_passing(),
            Self::Schema(error) => error.is_passing(),
        }
    }
}

/// Those of a history's connections, from the store's.
pub(super) fn own(options: &PostgresOptions) -> PostgresOptions {
    PostgresOptions {
        connections_max: options.connections_max.min(CONNECTIONS_MAX),
        schema: Some(SCHEMA),
        ..options.clone()
    }
}

/// Makes the schema in the store's database, or brings it up to date: one process at a time, others
/// wait. The user must be allowed to make schemas there once.
pub async fn migrate(options: &PostgresOptions) -> Result<(), ConnectError> {
    options.check()?;
    Ok(postgres::migrate(&own(options), &MIGRATIONS).await?)
}

impl SqlHistory {
    /// Connects to the history in the store's database, whose schema is looked at first. It may be
    /// newer than this binary's if it was made for it too.
    pub async fn connect(options: &PostgresOptions, schema: Schema) -> Result<Self, ConnectError> {
        options.check()?;
        let options = own(options);
        // What was appended survives our death, and the server's crash costs its last half second.
        let pool = postgres::connect(&options, Commits::Soon).await;
        let pool = pool.map_err(|source| ConnectError::Connect {
            place: options.place(),
            database: options.database.clone(),
            source,
        })?;
        match schema {
            Schema::Migrate => postgres::migrate(&options, &MIGRATIONS).await?,
            Schema::Check => postgres::check_schema(&options, &MIGRATIONS).await?,
        }
        Ok(Self::new(pool.clone(), pool))
    }
}
