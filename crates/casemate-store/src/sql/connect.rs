//! Connecting to PostgreSQL: who may change its schema, and which pools there are.

use casemate_sql::Error;
use casemate_sql::postgres::{self, Commits, OptionsError, PostgresOptions, SchemaError};
use sqlx::migrate::Migrator;

use super::SqlStore;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/postgres");

/// Connections of the pool for notes, beside those of the options.
const NOTES_CONNECTIONS: u32 = 2;

/// What becomes of a schema that is older than this binary's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// It is refused: one of several servers does not change what the others use.
    Check,
    /// It is brought up to date.
    Migrate,
}

/// Why a PostgreSQL database cannot be used as a store. No text of it has the password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("settings of the database")]
    Options(#[from] OptionsError),
    #[error("cannot connect to database {database} at {place}")]
    Connect {
        place: String,
        database: String,
        #[source]
        source: Error,
    },
    #[error(transparent)]
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

/// Brings the schema of a database up to date: one process at a time, others wait.
pub async fn migrate(options: &PostgresOptions) -> Result<(), ConnectError> {
    options.check()?;
    Ok(postgres::migrate(options, &MIGRATIONS).await?)
}

impl SqlStore {
    /// Connects to a database, whose schema is looked at first. It may be newer than this binary's
    /// if it was made for it too.
    pub async fn connect(options: &PostgresOptions, schema: Schema) -> Result<Self, ConnectError> {
        options.check()?;
        let all = postgres::connect(options, Commits::Synced).await;
        let all = all.map_err(|source| ConnectError::Connect {
            place: options.place(),
            database: options.database.clone(),
            source,
        })?;
        match schema {
            Schema::Migrate => postgres::migrate(options, &MIGRATIONS).await?,
            Schema::Check => postgres::check_schema(options, &MIGRATIONS).await?,
        }
        let few = PostgresOptions {
            connections_max: NOTES_CONNECTIONS,
            ..options.clone()
        };
        Ok(Self {
            fast: all.clone(),
            durable: all.clone(),
            readers: all,
            notes: postgres::lazy(&few, Commits::Soon),
            checkpoints: None,
        })
    }
}
