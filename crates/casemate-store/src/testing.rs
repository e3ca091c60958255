//! A store that lives as long as the test, and builds that nobody built.

mod faulty;

use std::ops::Deref;
use std::sync::Arc;

use casemate_sql::postgres::PostgresOptions;
use casemate_sql::testing::Postgres;
use casemate_types::{BuildFailure, Distribution, Resources, TemplateId, Timestamp};
use tempfile::TempDir;

use crate::sql::{Schema, migrate};
use crate::{Build, BuildId, BuildRequested, NewBuild, SqlStore, SqliteStore, Store, Team};

pub use faulty::{Fault, FaultyStore};

/// Dropping it removes the files; keep it while the store is in use.
pub struct TempStore {
    store: Arc<SqliteStore>,
    dir: TempDir,
}

impl TempStore {
    /// An empty store in a new directory.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn open() -> Self {
        let dir = tempfile::tempdir().expect("make a temporary directory");
        let path = dir.path().join("store.sqlite");
        let store = SqliteStore::open(&path).await.expect("open a new store");
        Self {
            store: Arc::new(store),
            dir,
        }
    }

    /// For what wants an `Arc<dyn Store>`.
    pub fn share(&self) -> Arc<SqliteStore> {
        Arc::clone(&self.store)
    }

    /// Where its file is.
    pub fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("store.sqlite")
    }
}

impl Deref for TempStore {
    type Target = SqliteStore;

    fn deref(&self) -> &SqliteStore {
        &self.store
    }
}

/// The name of the database from which those of tests are copied.
const TEMPLATE: &str = "store_template";

/// A store in a database of its own on the tests' PostgreSQL server.
pub struct TempPostgres {
    store: Arc<SqlStore>,
    options: PostgresOptions,
}

impl TempPostgres {
    /// An empty store in a new database; `None` where tests have no server.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn open() -> Option<Self> {
        let server = Postgres::shared()?;
        Some(Self::on(server).await)
    }

    /// … on this server.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn on(server: &Postgres) -> Self {
        let fill = async |options: PostgresOptions| migrate(&options).await;
        server.template(TEMPLATE, fill).await;
        let options = server.database(Some(TEMPLATE)).await;
        Self::at(options).await
    }

    /// Another store in the same database, as another server has it.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn beside(&self) -> Self {
        Self::at(self.options.clone()).await
    }

    async fn at(options: PostgresOptions) -> Self {
        let store = SqlStore::connect(&options, Schema::Check).await;
        Self {
            store: Arc::new(store.expect("connect to a new database")),
            options,
        }
    }

    /// For what wants an `Arc<dyn Store>`.
    pub fn share(&self) -> Arc<SqlStore> {
        Arc::clone(&self.store)
    }

    /// Where its database is.
    pub fn options(&self) -> &PostgresOptions {
        &self.options
    }
}

impl Deref for TempPostgres {
    type Target = SqlStore;

    fn deref(&self) -> &SqlStore {
        &self.store
    }
}

/// Of a build of this name and these tags, without a bound.
pub fn a_request(team: &Team, alias: &str, tags: &[&str], at: Timestamp) -> NewBuild {
    NewBuild {
        team: team.id.clone(),
        namespace: team.slug.clone(),
        alias: alias.into(),
        tags: tags.iter().map(|tag| (*tag).into()).collect(),
        build: BuildId::random(),
        template: TemplateId::random(),
        resources: Resources::BASE,
        at,
        builds_max: u32::MAX,
        counted_from: at,
        waiting_counted_from: at,
        superseded: BuildFailure {
            message: "superseded".into(),
            step: None,
        },
    }
}

/// A build of this name and these tags that is ready, over one layer `base`.
///
/// # Panics
/// When the store refuses it.
pub async fn build_ready(
    store: &dyn Store,
    team: &Team,
    alias: &str,
    tags: &[&str],
    at: Timestamp,
) -> Build {
    let new = a_request(team, alias, tags, at);
    let asked = store.build_request(&new).await.expect("ask for a build");
    let BuildRequested::Done { template, .. } = asked else {
        panic!("{alias} was refused: {asked:?}");
    };
    let build = Build {
        id: new.build,
        template,
        layers: vec!["base".into()],
        resources: new.resources,
        default_user: "user".into(),
        default_workdir: None,
        envd_version: "0.6.13".into(),
        files: None,
        envs: Default::default(),
        startup: None,
        distribution: Distribution::Other,
        created_at: at,
    };
    let begun = store.build_begin(&build.id, "a-server", at).await;
    begun.expect("begin a build");
    let done = store.build_finish(&build, 1024, at).await;
    assert!(done.expect("finish a build"), "it is not building");
    build
}
