//! Opening the file: its mode, its settings, its schema.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_sql::{Pool, sqlite};
use sqlx::SqlitePool;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use super::{READERS_MAX, SqlHistory};
use crate::HistoryError;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

/// Why a file cannot be used as a history. Deleting it loses the past and nothing else.
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
    #[error("bring the schema of {path} up to date", path = path.display())]
    Migrate {
        path: PathBuf,
        #[source]
        source: MigrateError,
    },
    #[error("read {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: HistoryError,
    },
}

impl SqlHistory {
    /// Opens the file, made if missing (mode 0600), and brings its schema up to date. One process
    /// at a time; the lock on the data directory sees to that.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        sqlite::create(path).map_err(|source| OpenError::Create {
            path: path.into(),
            source,
        })?;
        let options = sqlite::options(path);
        let writer = options
            .clone()
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal);
        let writer = sqlite::pool(1)
            .connect_with(writer)
            .await
            .map_err(|source| OpenError::Open {
                path: path.into(),
                source,
            })?;
        if let Err(source) = MIGRATIONS.run(&writer).await {
            writer.close().await;
            return Err(OpenError::Migrate {
                path: path.into(),
                source,
            });
        }
        let readers = readers(options.read_only(true));
        let history = Self::new(Pool::Sqlite(writer), Pool::Sqlite(readers));
        if let Err(source) = history.take_over_batches().await {
            history.close().await;
            return Err(OpenError::Read {
                path: path.into(),
                source,
            });
        }
        Ok(history)
    }
}

/// Readers come when somebody reads, and go again.
fn readers(options: SqliteConnectOptions) -> SqlitePool {
    sqlite::pool(READERS_MAX)
        .idle_timeout(Duration::from_secs(60))
        .connect_lazy_with(options)
}
