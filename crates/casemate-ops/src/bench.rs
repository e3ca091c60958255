//! How fast and how small an installation is, each figure beside its floor in the same run.
//!
//! Machines differ and are shared: a figure alone says little. So what the bare kernel needs for the
//! same thing is measured in turn with it, sample by sample, and what the platform adds is what
//! counts. Nothing here is asserted; whoever reads the report judges.

mod alone;
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

pub use alone::{Alone, AlonePart, run_alone};
pub use error::BenchError;
pub use machine::Machine;
pub use measure::stores::Beside;
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
    /// What [`Part::Stores`] compares with.
    pub beside: Option<Beside>,
    /// What is measured, in this order.
    pub parts: Vec<Part>,
    /// How many the figures about many take.
    pub scale: Scale,
}

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What the idle platform and idle sandboxes keep.
    Memory,
    /// From the request to the result of a first command.
    Create,
    /// One more command in a sandbox.
    RoundTrip,
    /// Creates at the same time.
    Burst,
    /// Pauses, resumes, and wake-ups by traffic.
    Pause,
    /// Snapshots, and creates that begin with one.
    Snapshot,
    /// Forks at the same time.
    Forks,
    /// The stock Python SDK.
    Sdk,
    /// Creates that find a started sandbox.
    Warm,
    /// Builds of which all, nearly all, or all but a package is in the cache.
    Rebuilds,
    /// Clients that create, run and end at the same time.
    Clients,
    /// Creates with many more mounts on the host.
    Mounts,
    /// Processor time of the platform with many idle sandboxes.
    IdleProcessor,
    /// Creates beside many live sandboxes.
    Live,
    /// Creates and rebuilds beside many layers and cached states. Last: the layers stay until the
    /// cache forgets them.
    Layers,
    /// Creates of an installation with databases, beside those of this one without.
    Stores,
}

impl Part {
    /// Those that take two minutes together.
    ///
    /// Memory first: what the other figures leave in caches would be counted there.
    pub const USUAL: [Self; 10] = [
        Self::Memory,
        Self::Create,
        Self::RoundTrip,
        Self::Burst,
        Self::Pause,
        Self::Snapshot,
        Self::Forks,
        Self::Sdk,
        Self::Warm,
        Self::Rebuilds,
    ];
    /// Those that take minutes and want a platform that is allowed to hold many.
    pub const SCALE: [Self; 5] = [
        Self::Clients,
        Self::Mounts,
        Self::IdleProcessor,
        Self::Live,
        Self::Layers,
    ];

    /// Each with the name that users give it.
    pub const NAMED: [(&str, Self); 16] = [
        ("memory", Self::Memory),
        ("create", Self::Create),
        ("round-trip", Self::RoundTrip),
        ("burst", Self::Burst),
        ("pause", Self::Pause),
        ("snapshot", Self::Snapshot),
        ("forks", Self::Forks),
        ("sdk", Self::Sdk),
        ("warm", Self::Warm),
        ("rebuilds", Self::Rebuilds),
        ("clients", Self::Clients),
        ("mounts", Self::Mounts),
        ("idle-processor", Self::IdleProcessor),
        ("live", Self::Live),
        ("layers", Self::Layers),
        ("stores", Self::Stores),
    ];

    /// `None`: no part has that name.
    pub fn named(name: &str) -> Option<Self> {
        let named = Self::NAMED.iter().find(|(other, _)| *other == name);
        named.map(|(_, part)| *part)
    }

    fn stage(self) -> &'static str {
        match self {
            Self::Memory => "memory of the idle platform and of idle sandboxes",
            Self::Create => "create to result of /bin/true",
            Self::RoundTrip => "a command's round trip",
            Self::Burst => "creates at once",
            Self::Pause => "pause, resume and wake",
            Self::Snapshot => "snapshots and creates from them",
            Self::Forks => "forks at once",
            Self::Sdk => "the stock SDK",
            Self::Warm => "sandboxes that are started already",
            Self::Rebuilds => "builds from the cache",
            Self::Clients => "many clients at once",
            Self::Mounts => "more mounts on the host",
            Self::IdleProcessor => "processor time of the idle platform",
            Self::Live => "create to result beside many sandboxes",
            Self::Layers => "create and rebuild beside many layers",
            Self::Stores => "creates with and without databases",
        }
    }

    /// How long it takes beside the others, roughly.
    fn weight(self) -> usize {
        match self {
            Self::Memory | Self::Create => 25,
            Self::Pause | Self::Snapshot | Self::Forks => 15,
            Self::RoundTrip | Self::Burst | Self::Sdk | Self::Clients | Self::Mounts => 15,
            Self::Warm | Self::Rebuilds => 40,
            Self::IdleProcessor => 80,
            Self::Live => 60,
            Self::Stores => 120,
            Self::Layers => 300,
        }
    }
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
    /// Layers that lie in the store while sandboxes are created and templates built again.
    pub layers: usize,
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
/// Sandboxes that it made are ended whatever happens, as far as the platform lets it. What was
/// measured before something failed is told beside the failure.
pub async fn run(
    api: &Api,
    edge: &BaseUrl,
    options: &Options,
    progress: &(dyn Fn(u8, &str) + Sync),
) -> Result<(Report, Option<BenchError>), BenchError> {
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
    let mut fault = None;
    let whole: usize = options.parts.iter().map(|part| part.weight()).sum();
    let mut done = 0;
    for part in &options.parts {
        let percent = u8::try_from(done * 100 / whole).unwrap_or(100);
        progress(percent, part.stage());
        if let Err(error) = bench.measure(*part).await {
            fault = Some(error);
            break;
        }
        done += part.weight();
    }
    progress(100, "done");
    let Bench { figures, notes, .. } = bench;
    let report = Report {
        machine: Machine::read(),
        figures,
        notes,
    };
    Ok((report, fault))
}
