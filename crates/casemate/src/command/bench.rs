//! `casemate bench`: how fast and how small this installation is, beside what the kernel needs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use casemate_build::Progress;
use casemate_ops::bench::{
    self, Alone, AlonePart, BenchError, Beside, Options, Part, Report, Scale, Sdk,
};
use casemate_store::{Schema, SqlStore, Store, Teams};
use casemate_types::Timestamp;
use clap::builder::PossibleValuesParser;
use serde_json::json;

use super::server::ServerArgs;
use crate::admin::{Reply, Request, ask};
use crate::data_dir::admin_socket;
use crate::output::Output;
use crate::up::config_of;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// What sandboxes are made from.
    #[arg(long, default_value = "base")]
    template: String,
    /// Samples of each figure.
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Sandboxes that are created at the same time.
    #[arg(long, default_value_t = 100)]
    burst: usize,
    /// How often they are.
    #[arg(long, default_value_t = 3)]
    burst_rounds: usize,
    /// Idle sandboxes over which memory is shared out; 0 leaves it out.
    #[arg(long, default_value_t = 200)]
    idle: usize,
    /// A Python that has the stock SDK (`pip install e2b`).
    #[arg(long, value_name = "FILE", env = "CASEMATE_BENCH_PYTHON")]
    python: Option<PathBuf>,
    /// What that Python runs.
    #[arg(long, value_name = "FILE", default_value = "tests/bench/sdk.py")]
    sdk_script: PathBuf,
    /// Also measure how it behaves with many sandboxes, clients and layers. Takes minutes, and wants
    /// `MAX_SANDBOXES` and `limits.team_sandboxes_max` above 1000.
    #[arg(long)]
    scale: bool,
    /// Measure this alone; may be repeated. `placement` and `listing` need no platform: a simulation with
    /// 1000 nodes and a million creates, and pages of 100 000 sandboxes, on SQLite and in the empty
    /// database of `DATABASE_URL`, which keeps them.
    #[arg(long, value_name = "PART", value_parser = names(), conflicts_with = "scale")]
    only: Vec<String>,
    /// With `--only stores`: the data directory of another platform of this machine, which keeps its store
    /// in PostgreSQL and Redis where this one has none. `tests/bench/stores.py` starts both.
    #[arg(long, value_name = "DIR")]
    beside: Option<PathBuf>,
    /// With `--beside`: the first process of PostgreSQL, and of Redis; their processor time counts.
    #[arg(long, value_name = "PID", requires = "beside")]
    beside_process: Vec<u32>,
    /// Put the table into this document.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// What may be measured alone.
fn names() -> PossibleValuesParser {
    let named = Part::NAMED.map(|(name, _)| name);
    let alone = AlonePart::NAMED.map(|(name, _)| name);
    PossibleValuesParser::new(named.into_iter().chain(alone))
}

impl Args {
    fn parts(&self) -> Vec<Part> {
        let mut parts = Part::USUAL.to_vec();
        if self.scale {
            parts.extend(Part::SCALE);
        }
        if !self.only.is_empty() {
            let named = self.only.iter().filter_map(|name| Part::named(name));
            parts = named.collect();
        }
        parts
    }
}

/// Of `casemate internal bench-floor`.
#[derive(clap::Args)]
pub struct FloorArgs {
    /// The binary that runs in sandboxes.
    #[arg(long)]
    agent: Option<PathBuf>,
}

/// Serves floors to the bench that started us.
pub fn floor(args: FloorArgs) -> anyhow::Result<()> {
    Ok(bench::floor::serve(args.agent.as_deref())?)
}

pub async fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    ensure!(
        args.count > 0 && args.burst > 0,
        "nothing is measured with a count of 0"
    );
    if args
        .only
        .iter()
        .any(|name| AlonePart::named(name).is_some())
    {
        return run_alone(&args, output).await;
    }
    let server = args.server.connect()?;
    let parts = args.parts();
    let sdk = args.python.map(|python| Sdk {
        python,
        script: args.sdk_script,
        api_key: server.api_key.clone(),
        api_url: server.base.clone(),
    });
    ensure!(
        parts.contains(&Part::Stores) == args.beside.is_some(),
        "--only stores and --beside belong together"
    );
    let beside = match args.beside {
        None => None,
        Some(dir) => {
            let other = ServerArgs::of_dir(dir);
            Some(Beside {
                api: other.connect()?.api,
                platform: platform(&other).await?,
                databases: args.beside_process,
            })
        }
    };
    let program = std::env::current_exe().context("find our own program")?;
    let platform = platform(&args.server).await?;
    let mut floor = vec!["internal".to_owned(), "bench-floor".to_owned()];
    if parts.contains(&Part::Clients) {
        let agent = crate::up::programs::agent_of(&args.server.dir())?;
        floor.extend(["--agent".to_owned(), agent.display().to_string()]);
    }
    let options = Options {
        template: args.template,
        count: args.count,
        burst: args.burst,
        burst_rounds: args.burst_rounds,
        idle: args.idle,
        sdk,
        platform,
        floor: (program, floor),
        beside,
        parts,
        scale: Scale {
            live: 1000,
            mounts: 1000,
            clients: 50,
            idle: 500,
            layers: 1000,
        },
    };
    let line = output.progress("bench");
    let progress = |percent: u8, stage: &str| line.step(percent, stage);
    let measured = bench::run(&server.api, &server.edge, &options, &progress).await;
    line.finish();
    let (report, fault) = measured?;
    told(&report, fault, args.report.as_deref(), output)
}

/// What needs no platform.
async fn run_alone(args: &Args, output: &Output) -> anyhow::Result<()> {
    let named = args.only.iter().map(|name| AlonePart::named(name));
    let parts: Option<Vec<AlonePart>> = named.collect();
    let parts = parts.context("what needs a platform and what needs none is measured apart")?;
    // Removed with all that is in it.
    let dir = tempfile::tempdir().context("make a folder for a store")?;
    let mut stores: Vec<(&str, Arc<dyn Store>)> = Vec::new();
    if parts.contains(&AlonePart::Listing) {
        let file = SqlStore::open(&dir.path().join("store.sqlite")).await?;
        stores.push(("SQLite", Arc::new(file)));
        if let Some(options) = config_of(None, None)?.database.options()? {
            let store = SqlStore::connect(&options, Schema::Migrate).await?;
            ensure!(
                store.team_list().await?.is_empty(),
                "the database {} is in use: this fills an empty one",
                options.database
            );
            stores.push(("PostgreSQL", Arc::new(store)));
        }
    }
    let options = Alone {
        parts,
        count: args.count,
        nodes: 1000,
        creates: 1_000_000,
        rows: 100_000,
        stores,
    };
    let line = output.progress("bench");
    let progress = |percent: u8, stage: &str| line.step(percent, stage);
    let (report, fault) = bench::run_alone(&options, &progress).await;
    line.finish();
    told(&report, fault, args.report.as_deref(), output)
}

fn told(
    report: &Report,
    fault: Option<BenchError>,
    into: Option<&Path>,
    output: &Output,
) -> anyhow::Result<()> {
    let commit = commit();
    let date = Timestamp::now().to_string();
    let date = date.split('T').next().unwrap_or_default();
    let table = report.markdown(&commit, date);
    let value = json!({"commit": commit, "date": date, "report": report});
    output.value(&value, || table.trim_end().to_owned());
    if let Some(fault) = fault {
        return Err(anyhow::Error::new(fault).context("the bench is not complete"));
    }
    if let Some(path) = into {
        bench::write_into(path, &table)?;
        output.note(&format!("wrote {}", path.display()));
    }
    Ok(())
}

/// The processes of the platform of our data directory; none when it is another machine's.
async fn platform(server: &ServerArgs) -> anyhow::Result<Vec<u32>> {
    match ask(&admin_socket(&server.dir()), Request::Status).await? {
        Some(Reply::Status(status)) => Ok(std::iter::once(status.pid)
            .chain(status.processes.into_values())
            .collect()),
        _ => Ok(Vec::new()),
    }
}

/// The commit of the sources that we stand in.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(args)
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    match git(&["rev-parse", "--short=10", "HEAD"]) {
        None => "unknown".to_owned(),
        Some(head) => match git(&["status", "--porcelain", "--untracked-files=no"]) {
            Some(changed) if changed.is_empty() => head,
            _ => format!("{head} with changes"),
        },
    }
}
