//! Opening a SQLite file: its mode, its settings, its schema.

use std::io;
use std::path::{Path, PathBuf};

use casemate_sql::{Pool, sqlite};
use sqlx::SqlitePool;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};

use super::checkpoint::{self, Checkpoints};
use super::{BUSY_WAIT, READERS_MAX, SqlStore};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

/// Why a file cannot be used as a store. Nothing was changed in it, except by
/// [`OpenError::Migrate`], before which whole migrations may have been applied.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("create {path}", path = path.display())]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("open {path} as a SQLite database", path = path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: sqlx::Error,
    },
    #[error(
        "{path} has schema version {found}, but this version of Casemate knows only {known}: \
         it was written by a newer version; run that version or a newer one",
        path = path.display()
    )]
    NewerSchema {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error(
        "schema version {version} of {path} is not the one that was released under this number",
        path = path.display()
    )]
    ForeignSchema { path: PathBuf, version: i64 },
    #[error("bring the schema of {path} up to date", path = path.display())]
    Migrate {
        path: PathBuf,
        #[source]
        source: MigrateError,
    },
}

impl SqlStore {
    /// Opens the file, made if missing (mode 0600: it holds hashes of keys), and brings its
    /// schema up to date. One process at a time; the lock on the data directory sees to that.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        sqlite::create(path).map_err(|source| OpenError::Create {
            path: path.into(),
            source,
        })?;
        let options = sqlite::options(path).busy_timeout(BUSY_WAIT);
        let writer = options.clone().journal_mode(SqliteJournalMode::Wal);
        let refused = |source| OpenError::Open {
            path: path.into(),
            source,
        };
        let durable = sqlite::pool(1)
            .connect_with(writer.clone().synchronous(SqliteSynchronous::Full))
            .await
            .map_err(refused)?;
        if let Err(error) = migrate(&durable, path).await {
            durable.close().await;
            return Err(error);
        }
        let fast = writer
            .synchronous(SqliteSynchronous::Normal)
            .pragma("wal_autocheckpoint", checkpoint::PAGES_MAX);
        let fast = sqlite::pool(1).connect_with(fast).await.map_err(refused)?;
        let readers = sqlite::pool(READERS_MAX).connect_lazy_with(options.read_only(true));
        Ok(Self {
            fast: Pool::Sqlite(fast.clone()),
            notes: Pool::Sqlite(fast),
            checkpoints: Some(Checkpoints::start(durable.clone())),
            durable: Pool::Sqlite(durable),
            readers: Pool::Sqlite(readers),
        })
    }
}

async fn migrate(pool: &SqlitePool, path: &Path) -> Result<(), OpenError> {
    let known = MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0);
    let path = PathBuf::from(path);
    MIGRATIONS.run(pool).await.map_err(|source| match source {
        MigrateError::VersionMissing(found) if found > known => {
            OpenError::NewerSchema { path, found, known }
        }
        MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => {
            OpenError::ForeignSchema { path, version }
        }
        source => OpenError::Migrate { path, source },
    })
}
