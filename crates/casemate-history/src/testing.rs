//! A history that lives as long as the test.

use std::ops::Deref;
use std::sync::Arc;

use casemate_sql::postgres::PostgresOptions;
use casemate_sql::testing::Postgres;
use tempfile::TempDir;

use crate::{Schema, SqlHistory, SqliteHistory, migrate};

/// Dropping it removes the files; keep it while the history is in use.
pub struct TempHistory {
    history: Arc<SqliteHistory>,
    _dir: TempDir,
}

impl TempHistory {
    /// An empty history in a new directory.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn open() -> Self {
        let dir = tempfile::tempdir().expect("make a temporary directory");
        let path = dir.path().join("history.sqlite");
        let history = SqliteHistory::open(&path).await.expect("open a history");
        Self {
            history: Arc::new(history),
            _dir: dir,
        }
    }

    /// For what wants an `Arc<dyn History>`.
    pub fn share(&self) -> Arc<SqliteHistory> {
        Arc::clone(&self.history)
    }
}

impl Deref for TempHistory {
    type Target = SqliteHistory;

    fn deref(&self) -> &SqliteHistory {
        &self.history
    }
}

/// The name of the database from which those of tests are copied.
const TEMPLATE: &str = "history_template";

/// A history in a database of its own on the tests' PostgreSQL server.
pub struct TempPostgresHistory {
    history: Arc<SqlHistory>,
    options: PostgresOptions,
}

impl TempPostgresHistory {
    /// An empty history in a new database; `None` where tests have no server.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn open() -> Option<Self> {
        let server = Postgres::shared()?;
        let fill = async |options: PostgresOptions| migrate(&options).await;
        server.template(TEMPLATE, fill).await;
        Some(Self::at(server.database(Some(TEMPLATE)).await).await)
    }

    /// Another history in the same database, as another server has it.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn beside(&self) -> Self {
        Self::at(self.options.clone()).await
    }

    async fn at(options: PostgresOptions) -> Self {
        let history = SqlHistory::connect(&options, Schema::Check).await;
        Self {
            history: Arc::new(history.expect("connect to a new database")),
            options,
        }
    }

    /// For what wants an `Arc<dyn History>`.
    pub fn share(&self) -> Arc<SqlHistory> {
        Arc::clone(&self.history)
    }

    /// Where its database is.
    pub fn options(&self) -> &PostgresOptions {
        &self.options
    }
}

impl Deref for TempPostgresHistory {
    type Target = SqlHistory;

    fn deref(&self) -> &SqlHistory {
        &self.history
    }
}
