//! How fast and how small an installation is, each figure beside its floor in the same run.
//!
//! Machines differ and are shared: a figure alone says little. So what the bare kernel needs for the
//! same thing is measured in turn with it, sample by sample, and what the platform adds is what
//! counts. Nothing here is asserted; whoever reads the report judges.

mod error;
pub mod floor;
mod floor_process;
mod machine;
mod measure;
mod nothing;
mod report;
mod samples;

use std::path::PathBuf;

use casemate_client::{Api, BaseUrl};

pub use error::BenchError;
pub use machine::Machine;
pub use report::{Figure, Report, Unit, write_into};

use floor_process::FloorProcess;
use measure::Bench;

/// What to measure, and how often.
#[derive(Debug, Clone)]
pub struct Options {
    pub template: String,
    /// Samples of each figure that is a single action.
    pub count: usize,
    /// Sandboxes that are created at the same time, and how often that is done.
    pub burst: usize,
    pub burst_rounds: usize,
    /// Sandboxes over which memory is shared out.
    pub idle: usize,
    /// The Python that has the stock SDK, and the script that drives it. None: no such row.
    pub sdk: Option<Sdk>,
    /// The processes of the platform, with their descendants. Empty: memory is not measured, for
    /// the platform is somewhere else.
    pub platform: Vec<u32>,
    /// How a process that serves floors is started: this program and its arguments.
    pub floor: (PathBuf, Vec<String>),
    /// How it behaves with many sandboxes. None: not measured, it takes minutes.
    pub scale: Option<Scale>,
}

/// What is many.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Sandboxes that live while others are created; the platform must allow one more.
    pub live: usize,
    /// Mounts that are added to the host.
    pub mounts: usize,
    /// Clients that create, run and end sandboxes at the same time.
    pub clients: usize,
    /// Idle sandboxes while the platform's processor time is read.
    pub idle: usize,
}

/// The stock SDK's runner.
#[derive(Debug, Clone)]
pub struct Sdk {
    pub python: PathBuf,
    pub script: PathBuf,
    pub api_key: String,
    pub api_url: BaseUrl,
}

/// Measures everything, telling `progress` how far it is, in percent, and what it does.
///
/// Sandboxes that it made are ended whatever happens, as far as the platform lets it.
pub async fn run(
    api: &Api,
    edge: &BaseUrl,
    options: &Options,
    progress: &(dyn Fn(u8, &str) + Sync),
) -> Result<Report, BenchError> {
    let (program, args) = &options.floor;
    let floor = FloorProcess::start(program, args).await?;
    let mut bench = Bench {
        api,
        edge,
        options,
        floor,
        figures: Vec::new(),
        notes: Vec::new(),
    };
    // Memory first: what the other figures leave in caches would be counted here.
    progress(0, "memory of the idle platform");
    bench.idle_platform()?;
    progress(5, "memory of idle sandboxes");
    bench.idle_sandboxes().await?;
    progress(25, "create to result of /bin/true");
    bench.create_and_run().await?;
    progress(50, "a command's round trip");
    bench.round_trip().await?;
    progress(65, "creates at once");
    bench.burst().await?;
    progress(80, "the stock SDK");
    bench.sdk().await?;
    if let Some(scale) = &options.scale {
        progress(82, "many clients at once");
        bench.throughput(scale).await?;
        progress(85, "more mounts on the host");
        bench.beside_mounts(scale).await?;
        progress(88, "processor time of the idle platform");
        bench.idle_processor(scale).await?;
        progress(94, "create to result beside many sandboxes");
        bench.beside_live(scale).await?;
    }
    progress(100, "done");
    let Bench { figures, notes, .. } = bench;
    Ok(Report {
        machine: Machine::read(),
        figures,
        notes,
    })
}
