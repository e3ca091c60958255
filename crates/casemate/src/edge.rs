//! `casemate edge`: clients' traffic for the sandboxes of a cluster. Any number of them behind a load
//! balancer; none holds state, knows the database's password, or needs root.
//!
//! ```text
//!  clients ── 8081 ──▶ edge ──▶ nodes' gates (8082) ──▶ sandboxes
//!                        ├───▶ Redis            where a sandbox is
//!                        └───▶ API servers      who is there; wake this one
//! ```
//!
//! How sandboxes are found is `casemate-front`'s; here it is wired.

mod no_api;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::{self, EdgeFlags, Flags, Loaded, Role};
use crate::output::Output;
use crate::{child, log};

#[derive(clap::Args)]
pub struct Args {
    /// Where its certificate is kept, and who is in the cluster.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where clients' traffic comes.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// https as well: off, local, files or acme.
    #[arg(long, value_name = "MODE")]
    tls: Option<String>,
    /// Where https comes.
    #[arg(long, value_name = "ADDR:PORT")]
    tls_listen: Option<String>,
    /// With `--tls files`: the certificate and its chain.
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// With `--tls files`: its key.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Name, and port, under which clients reach the cluster.
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Settings; `/etc/casemate/casemate.toml` when there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    cluster: EdgeFlags,
}

/// How long work that nobody can cancel may go on at the end.
const LAST_WORK: Duration = Duration::from_secs(2);

pub fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let flags = Flags {
        data_dir: args.data_dir,
        listen: args.listen,
        tls: args.tls,
        tls_listen: args.tls_listen,
        tls_certificate: args.tls_certificate,
        tls_key: args.tls_key,
        domain: args.domain,
        config: args.config,
        role: Role::Edge,
        cluster: args.cluster.into(),
        ..Flags::default()
    };
    let Loaded { config, warnings } = config::load(&flags)?;
    log::start(&config.log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if config.redis.settings()?.is_none() {
        tracing::warn!(
            "without Redis (redis.url, REDIS_URL) all nodes are asked for each sandbox that is not \
             known here yet"
        );
    }
    crate::up::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(child::workers())
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve::serve(config, output));
    runtime.shutdown_timeout(LAST_WORK);
    ended.map(|()| ExitCode::SUCCESS)
}
