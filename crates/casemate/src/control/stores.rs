//! Where the control process keeps what should last, and what it shares with others.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use casemate_catalog::{
    Catalog, Events, Leases, MemoryCatalog, Rates, RedisCatalog, ResilientCatalog,
};
use casemate_control::servers;
use casemate_history::{History, SqlHistory};
use casemate_store::{OpenError, Schema, Settings, SqlStore, Store, StoreError};
use casemate_types::steady;
use tracing::debug;

use crate::config::Config;
use crate::up::clock;

/// Routes that are known while Redis is away; more are asked of the nodes' next words.
const ROUTES_MAX: usize = 100_000;
/// The store of one machine, in the folder of control.
pub const STORE: &str = "store.sqlite";
/// What is left of it where it was moved into a database.
pub const MOVED: &str = "store.sqlite.moved";
/// The history of one machine, there too.
pub const HISTORY: &str = "history.sqlite";
/// What is left of it where it was moved into a database.
pub const HISTORY_MOVED: &str = "history.sqlite.moved";
/// In a database that several could use: whose it is.
const OWNER: &str = "single_instance";
/// … where it is many servers'. No instance is called so.
const CLUSTER: &str = "a cluster";

/// The store as it is configured. In a database of its own it is this instance's from then on: two
/// platforms of one machine each would end each other's sandboxes.
pub(super) async fn store(
    config: &Config,
    dir: &Path,
    instance: &str,
) -> anyhow::Result<Arc<dyn Store>> {
    let Some(options) = config.database.options()? else {
        let (path, moved) = (dir.join(STORE), dir.join(MOVED));
        ensure!(
            path.exists() || !moved.exists(),
            "the store of this data directory was moved into a database: set DATABASE_URL again, or \
             rename {} to {STORE} to go on with what was there then",
            moved.display()
        );
        let store = SqlStore::open(&path)
            .await
            .with_context(|| format!("open the store {}", path.display()))?;
        return Ok(Arc::new(store));
    };
    let store = SqlStore::connect(&options, Schema::Migrate)
        .await
        .context("open the store")?;
    let owner = store.setting_claim(OWNER, instance).await?;
    ensure!(
        owner == instance,
        "the database {} at {} belongs to another installation ({owner}): give this one a database \
         of its own",
        options.database,
        options.place()
    );
    Ok(Arc::new(store))
}

/// The store that API servers share, which is no single installation's from then on.
pub async fn shared(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let options = config.database.options()?.context("there is no database")?;
    let store = SqlStore::connect(&options, Schema::Migrate)
        .await
        .context("open the store")?;
    let owner = store.setting_claim(OWNER, CLUSTER).await?;
    ensure!(
        owner == CLUSTER,
        "the database {} at {} belongs to a `casemate up` ({owner}): give the cluster a database of \
         its own",
        options.database,
        options.place()
    );
    Ok(Arc::new(store))
}

/// Whether the same may succeed while nobody changes a setting, the database or the binary: one that is
/// away comes back, one that is another's stays so.
pub fn is_passing(error: &anyhow::Error) -> bool {
    if let Some(error) = error.downcast_ref::<casemate_store::ConnectError>() {
        return error.is_passing();
    }
    if let Some(error) = error.downcast_ref::<casemate_history::ConnectError>() {
        return error.is_passing();
    }
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return error.is_retryable();
    }
    match error.downcast_ref::<OpenError>() {
        Some(OpenError::NewerSchema { .. } | OpenError::ForeignSchema { .. }) | None => false,
        Some(_) => true,
    }
}

/// The origin of the database's clock.
async fn origin(store: &dyn Store) -> anyhow::Result<i64> {
    let asked = || async {
        let said = store.server_clock().await?;
        Ok::<_, StoreError>(said.as_microsecond())
    };
    let origin = clock::origin_of(asked).await;
    origin.context("read the database's clock")
}

/// Times that the clock may be set while a server takes its time from it.
const STEPS_MAX: u32 = 10;

/// The origin of the cluster's steady time: that of the database's clock as it was for the first of its
/// servers, whatever was done to it since.
pub async fn steady_origin(store: &dyn Store) -> anyhow::Result<i64> {
    let noted = || async {
        servers::clock::noted(store)
            .await
            .context("read how far it is apart")
    };
    let mut ahead = noted().await?;
    for _ in 0..STEPS_MAX {
        let origin = origin(store).await?;
        let then = noted().await?;
        if then == ahead {
            return Ok(origin.saturating_add(ahead));
        }
        ahead = then;
    }
    bail!("the database's clock is set again and again")
}

/// How often the database's clock is looked at.
const WALL_EVERY: Duration = Duration::from_secs(30);

/// What clients are told, and what is noted of what happened, is the database's wall clock, so that
/// servers say the same of one moment. While it is away, what was known of it holds. For ever.
pub async fn keep_wall(store: Arc<dyn Store>) {
    loop {
        match origin(&*store).await {
            Ok(origin) => steady::follow_wall(origin),
            Err(error) => debug!(error = format!("{error:#}"), "the database's clock is away"),
        }
        tokio::time::sleep(WALL_EVERY).await;
    }
}

/// The history, where the store is: in a file, or in the store's database.
pub async fn history(config: &Config, dir: &Path) -> anyhow::Result<Arc<dyn History>> {
    let Some(options) = config.database.options()? else {
        let path = dir.join(HISTORY);
        let history = SqlHistory::open(&path).await.with_context(|| {
            format!(
                "open the history {} (delete it to start without a past)",
                path.display()
            )
        })?;
        return Ok(Arc::new(history));
    };
    let history = SqlHistory::connect(&options, casemate_history::Schema::Migrate)
        .await
        .context("open the history")?;
    Ok(Arc::new(history))
}

/// The ports of the catalog.
pub struct Catalogs {
    pub routes: Arc<dyn Catalog>,
    pub rates: Arc<dyn Rates>,
    /// What only other processes can be told of: `None` where the catalog is this process's own.
    pub shared: Option<SharedCatalog>,
}

pub struct SharedCatalog {
    pub leases: Arc<dyn Leases>,
    pub events: Arc<dyn Events>,
}

/// In Redis, or in memory.
pub fn catalog(config: &Config) -> anyhow::Result<Catalogs> {
    let Some(settings) = config.redis.settings()? else {
        let memory = Arc::new(MemoryCatalog::default());
        return Ok(Catalogs {
            routes: Arc::clone(&memory) as _,
            rates: memory,
            shared: None,
        });
    };
    let redis = RedisCatalog::open(settings).context("[redis]")?;
    let catalog = Arc::new(ResilientCatalog::filling(redis, ROUTES_MAX));
    Ok(Catalogs {
        routes: Arc::clone(&catalog) as _,
        rates: Arc::clone(&catalog) as _,
        shared: Some(SharedCatalog {
            leases: Arc::clone(&catalog) as _,
            events: catalog,
        }),
    })
}
