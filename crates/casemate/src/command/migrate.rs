//! `casemate migrate`: the schemas of a PostgreSQL database, and what a machine's own store and history
//! hold, moved into one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use casemate_history::SqlHistory;
use casemate_sql::postgres::PostgresOptions;
use casemate_store::SqlStore;
use serde_json::json;

use crate::config::Config;
use crate::control::stores::{HISTORY, HISTORY_MOVED, MOVED, STORE};
use crate::data_dir::DataDir;
use crate::output::Output;
use crate::up::config_of;

#[derive(clap::Args)]
pub struct Args {
    /// Copy a store and its history: from `sqlite`, the files in the data directory …
    #[arg(long, value_name = "sqlite", requires = "to")]
    from: Option<String>,
    /// … to `postgres`, the database of `DATABASE_URL`, which must be empty.
    #[arg(long, value_name = "postgres", requires = "from")]
    to: Option<String>,
    /// The platform's data directory; no platform may run in it.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The settings that `up` is given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub async fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let copies = match (args.from.as_deref(), args.to.as_deref()) {
        (None, None) => false,
        (Some("sqlite"), Some("postgres")) => true,
        _ => bail!("only `--from sqlite --to postgres` can be copied"),
    };
    let config = config_of(args.data_dir, args.config)?;
    let options = config.database.options()?;
    let options = options.context("there is no database: set DATABASE_URL")?;
    // Before anything is changed; while it is held, no platform starts there.
    let source = copies.then(|| source(&config)).transpose()?;
    let place = format!("{} at {}", options.database, options.place());
    casemate_store::migrate(&options)
        .await
        .with_context(|| format!("bring the schema of {place} up to date"))?;
    casemate_history::migrate(&options)
        .await
        .with_context(|| format!("bring the history's schema of {place} up to date"))?;
    let (mut copied, mut past) = (BTreeMap::new(), BTreeMap::new());
    if let Some(dir) = &source {
        if dir.control().join(STORE).is_file() {
            copied = copy_store(dir, &options).await?;
        }
        // The store has moved: what is left to do can be done again.
        past = copy_history(dir, &options).await.with_context(|| {
            format!(
                "{place} has the store, and may be used; the past is still in {}: say the same again to \
                 copy it, before the platform is started",
                dir.control().join(HISTORY).display()
            )
        })?;
    }
    let (rows, old): (u64, u64) = (copied.values().sum(), past.values().sum());
    let value = json!({
        "database": options.database,
        "host": options.host,
        "copied": copied,
        "history": past,
    });
    output.value(&value, || match copies {
        true => {
            format!(
                "copied {rows} rows of the store and {old} of the history to {place}; start the \
                 platform with the same DATABASE_URL (the files that it had are {MOVED} and \
                 {HISTORY_MOVED} now)"
            )
        }
        false => format!("the schema of {place} is up to date"),
    });
    Ok(())
}

fn source(config: &Config) -> anyhow::Result<DataDir> {
    ensure!(
        DataDir::exists(&config.data_dir),
        "{} is no data directory",
        config.data_dir.display()
    );
    let dir = DataDir::open(&config.data_dir)?;
    let left = dir.control().join(MOVED).is_file() && dir.control().join(HISTORY).is_file();
    ensure!(
        dir.control().join(STORE).is_file() || left,
        "there is no store in {}",
        dir.root().display()
    );
    Ok(dir)
}

/// Afterwards the file has another name: nobody goes on with it by mistake, as with settings that lost
/// their database.
async fn copy_store(
    dir: &DataDir,
    to: &PostgresOptions,
) -> anyhow::Result<BTreeMap<&'static str, u64>> {
    let path = dir.control().join(STORE);
    let store = SqlStore::open(&path)
        .await
        .with_context(|| format!("open the store {}", path.display()))?;
    let copied = casemate_store::copy(&store, to).await;
    // It writes its log back into the file.
    store.close().await;
    let copied = copied.context("copy the store; nothing was written")?;
    let moved = dir.control().join(MOVED);
    std::fs::rename(&path, &moved)
        .with_context(|| format!("rename the former store to {}", moved.display()))?;
    Ok(copied)
}

/// Nothing where there is no past.
async fn copy_history(
    dir: &DataDir,
    to: &PostgresOptions,
) -> anyhow::Result<BTreeMap<&'static str, u64>> {
    let path = dir.control().join(HISTORY);
    if !path.is_file() {
        return Ok(BTreeMap::new());
    }
    let history = SqlHistory::open(&path)
        .await
        .with_context(|| format!("open the history {}", path.display()))?;
    let copied = casemate_history::copy(&history, to).await;
    history.close().await;
    let copied = copied.context("copy the history; nothing of it was written")?;
    let moved = dir.control().join(HISTORY_MOVED);
    std::fs::rename(&path, &moved)
        .with_context(|| format!("rename the former history to {}", moved.display()))?;
    Ok(copied)
}
