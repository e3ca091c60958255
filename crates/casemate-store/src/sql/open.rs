//! Opening a SQLite file: its mode, its settings, its schema.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_sql::Pool;
use sqlx::SqlitePool;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::checkpoint::{self, Checkpoints};
use super::{BUSY_WAIT, READERS_MAX, SqlStore};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

/// How long a call waits for a connection. Longer than [`BUSY_WAIT`], so that a writer that waits
/// for another process fails before those that wait for it.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);
/// Each connection's page cache, in KiB (negative is SQLite's way to say so). Usually 2 MiB, and
/// there are as many as readers; what is not in it is in the kernel's.
const CACHE: &str = "-512";

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
        create(path).map_err(|source| OpenError::Create {
            path: path.into(),
            source,
        })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY_WAIT)
            .pragma("cache_size", CACHE);
        let writer = options.clone().journal_mode(SqliteJournalMode::Wal);
        let refused = |source| OpenError::Open {
            path: path.into(),
            source,
        };
        let durable = pool(1)
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
        let fast = pool(1).connect_with(fast).await.map_err(refused)?;
        let readers = pool(READERS_MAX).connect_lazy_with(options.read_only(true));
        Ok(Self {
            fast: Pool::Sqlite(fast.clone()),
            notes: Pool::Sqlite(fast),
            checkpoints: Some(Checkpoints::start(durable.clone())),
            durable: Pool::Sqlite(durable),
            readers: Pool::Sqlite(readers),
        })
    }
}

fn create(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}

/// Connections live as long as the store: reopening one would cost a create its milliseconds.
fn pool(connections_max: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(CONNECTION_WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
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
