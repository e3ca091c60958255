//! `casemate api`: the REST API of a cluster. Any number of servers over one PostgreSQL database and
//! one Redis; none holds state, and none needs root.
//!
//! ```text
//!  clients ── 8080 ──▶ api ──▶ control ──▶ nodes' gates (8082)
//!  nodes, edges ── 8082 ──▶ members      └──▶ PostgreSQL, Redis
//! ```

mod calls;
mod first;
mod front;
mod health;
mod members;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;

use crate::config::{self, ApiFlags, Config, Flags, Loaded, Role};
use crate::output::Output;
use crate::{child, log, up};

#[derive(clap::Args)]
pub struct Args {
    /// Where its history, uploads and keys are kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the API listens.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Name, and port, under which clients reach the cluster.
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Settings; `/etc/casemate/casemate.toml` when there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    cluster: ApiFlags,
}

/// How long work that nobody can cancel may go on at the end.
const LAST_WORK: Duration = Duration::from_secs(2);

pub fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let flags = Flags {
        data_dir: args.data_dir,
        listen: args.listen,
        domain: args.domain,
        config: args.config,
        role: Role::Api,
        cluster: args.cluster.into(),
        ..Flags::default()
    };
    let Loaded { config, warnings } = config::load(&flags)?;
    log::start(&config.log)?;
    up::reported(&config.log.clone(), output, |output| {
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        must_fit(&config)?;
        up::raise_open_files();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(child::workers())
            .enable_all()
            .build()?;
        let ended = runtime.block_on(serve::serve(config, output));
        runtime.shutdown_timeout(LAST_WORK);
        ended
    })
}

/// What several servers need that one machine does not.
fn must_fit(config: &Config) -> anyhow::Result<()> {
    ensure!(
        config.database.options()?.is_some(),
        "an API server needs a PostgreSQL database that all of them share: set database.url \
         (DATABASE_URL)"
    );
    ensure!(
        !config.api_key_secret.is_empty(),
        "an API server needs the secret that all of them share: set auth.api_key_secret \
         (API_KEY_SECRET) to at least 32 random bytes, the same everywhere"
    );
    if config.redis.settings()?.is_none() {
        tracing::warn!(
            "without Redis (redis.url, REDIS_URL) edges must ask the nodes for each sandbox, and \
             rates are counted by each server alone"
        );
    }
    Ok(())
}
