//! A runtime begins: what the instance has on this host is taken over, or made.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use casemate_net::{NetConfig, NetPool};
use casemate_runtime::DiskLimit;
use tokio::sync::{Notify, mpsc};

use super::copies::Copies;
use super::look::Stir;
use super::{NamespacesRuntime, Shared, seal, stock};
use crate::cgroup::{Cgroups, ShownGroup};
use crate::config::NamespacesConfig;
use crate::dialer::Dialer;
use crate::launcher::message::Use;
use crate::launchers::{LauncherError, LauncherSpec, Launchers};
use crate::lease::{Lease, LeaseError};
use crate::pool::{Pool, PoolConfig, PoolError};
use crate::record::boot_id;
use crate::shelf::Shelf;
use crate::slots::{self, Slots};
use crate::step::{Step, StepError};
use crate::view::Views;

/// Names in the launchers' room of the folders that hold layers.
pub(super) const ROOM_DATA: &str = "d";
pub(super) const ROOM_WRITABLE: &str = "w";

/// Name of the views' mount point below the instance's folder in `/run`.
const VIEWS: &str = "view";

/// Why there is no runtime.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot lease ids and addresses")]
    Lease(#[from] LeaseError),
    #[error("cannot set up the network")]
    Network(#[from] casemate_net::NetError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("cannot start launchers")]
    Launchers(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<LauncherError> for OpenError {
    fn from(error: LauncherError) -> Self {
        Self::Launchers(Box::new(error))
    }
}

impl NamespacesRuntime {
    /// Takes over what the instance has on this host, or makes it. Prepares nothing yet: the
    /// first [`Runtime::sweep`] starts that. Call it inside a tokio runtime.
    pub async fn open(config: NamespacesConfig) -> Result<Self, OpenError> {
        let run_dir = config.instance_run_dir();
        let site = run_dir.join("launcher");
        std::fs::create_dir_all(&site).step("make the runtime's folder")?;
        std::fs::create_dir_all(&config.data_dir).step("make the data directory")?;
        let views_dir = run_dir.join(VIEWS);
        let lease = Lease::take(
            &config.run_dir.join("leases"),
            &config.instance,
            config.slot_range,
        )?;
        if let Some(former) = lease.former() {
            casemate_net::table_forget(former)?;
        }
        let cgroups = Arc::new(Cgroups::take(&config.instance, &config.run_dir)?);
        cgroups.bound_processes()?;
        let pool = Arc::new(Pool::open(PoolConfig {
            folder: config.data_dir.join("node"),
            mount: run_dir.join("pool"),
            bytes_max: config.pool_bytes_max,
            disk_reserve: config.disk_reserve_bytes,
            is_given_up: config.gives_pool_up,
        })?);
        let net = Arc::new(NetPool::open(NetConfig {
            instance: config.instance.clone(),
            subnet: lease.subnet(),
            state_dir: run_dir,
            allow_ranges: config.allow_ranges.clone(),
            connections_per_slot_max: config.connections_per_slot_max,
        })?);
        let groups = cgroups
            .shown()
            .map(|group| (group.name(), other_names(group)));
        let views = Arc::new(Views::open(views_dir, net.slot_link(), groups.collect())?);
        let agent = config
            .agent
            .canonicalize()
            .step("find the agent's binary")?;
        let data_dir = config
            .data_dir
            .canonicalize()
            .step("find the data directory")?;
        let config = NamespacesConfig { data_dir, ..config };
        let spec = |r#use| LauncherSpec {
            r#use,
            program: config.launcher.clone(),
            instance: config.instance.clone(),
            site: site.clone(),
            shown: BTreeMap::from([
                (ROOM_DATA.to_owned(), config.data_dir.clone()),
                (ROOM_WRITABLE.to_owned(), pool.writable_dir()),
            ]),
            views: views.root().to_owned(),
            layers_by_path: config.layers_by_path,
            agent: agent.clone(),
        };
        let launchers = Launchers::start(spec(Use::Creates), config.launchers.max(1)).await?;
        let preparer = Launchers::start(spec(Use::Preparations), 1).await?;
        let processors = processors().step("count processors")?;
        let shown = slots::Shown {
            views: Arc::clone(&views),
            processors,
            disk_bytes: enforced(&pool, stock::LAYER_BYTES),
        };
        let (used, waste) = mpsc::unbounded_channel();
        let enough = stock::enough(config.slot_stock);
        let clock = cgroups
            .clock_of_all()
            .step("open the clock of all sandboxes");
        let stir = Stir::new(clock?);
        let shared = Shared {
            boot_id: boot_id().step("read the boot's id")?,
            pool,
            slots: Slots::new(
                lease,
                Arc::clone(&cgroups),
                Arc::clone(&net),
                shown,
                preparer,
                enough,
            ),
            cgroups,
            net,
            layers: Shelf::new(enough),
            copies: Copies::new(),
            seals: seal::Lanes::new(),
            spared: Mutex::default(),
            room: Mutex::default(),
            full_at: Mutex::default(),
            launchers,
            dialer: Dialer::start().step("start the dialling threads")?,
            views,
            table: Mutex::default(),
            creating: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            calm: Notify::new(),
            stir,
            exits: Mutex::default(),
            used,
            waste: Mutex::new(Some(waste)),
            tasks: Mutex::default(),
            config,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }
}

/// Where several controllers share a hierarchy each is known by its own name, too.
fn other_names(group: ShownGroup<'_>) -> Vec<String> {
    match group.controllers {
        [_] => Vec::new(),
        several => several.to_vec(),
    }
}

/// A disk limit, where the pool holds sandboxes to it.
pub(super) fn enforced(pool: &Pool, bytes: u64) -> Option<u64> {
    (pool.disk_limit() == DiskLimit::Enforced).then_some(bytes)
}

fn processors() -> io::Result<Vec<u32>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    let all = (0..u32::try_from(rustix::thread::CpuSet::MAX_CPU).unwrap_or(1024))
        .filter(|processor| set.is_set(*processor as usize))
        .collect();
    Ok(all)
}
