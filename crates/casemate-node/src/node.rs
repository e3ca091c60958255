//! The node itself: what it is made of, who may have a place, and orders to one sandbox's task.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use casemate_rpc::{NodeError, NodeEvent, NodeInfo, RunningSandbox};
use casemate_runtime::{DiskLimit, Runtime, RuntimeError, SnapshotError, Snapshots};
use casemate_types::{EndReason, PauseReason, Resources, SandboxId, chain};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::admission::{Load, Machine, Measured};
use crate::events::Events;
use crate::hardware::{self, Hardware};
use crate::journal::{self, Entry, Journal};
use crate::offer::Offer;
use crate::sandbox::{Command, Done};
use crate::table::{Row, Table};
use crate::{AdmissionLimits, StartError};

/// What the binary decides for a node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// How others call it.
    pub name: String,
    /// Of the program.
    pub version: String,
    pub journal_dir: PathBuf,
    pub admission: AdmissionLimits,
    /// Creates that boot at once; the rest waits.
    pub boots_max: usize,
    /// Creates that may wait; beyond it they are refused.
    pub queue_max: usize,
    /// What paused sandboxes may hold of the machine's memory together (decision 20). Beyond it the
    /// one that rested for longest loses its processes.
    pub paused_memory_bytes: u64,
    /// Sandboxes that are paused with their memory at once: each holds a network slot. Beyond it the
    /// same.
    pub paused_max: usize,
    /// What of layers and kept files that lie in the bucket too is kept, bytes. Beyond it the least
    /// recently used go, unless they are needed.
    pub cache_bytes_max: u64,
}

/// A node. Cheap to clone; all clones are the same node.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: NodeConfig,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) snapshots: Arc<dyn Snapshots>,
    pub(crate) journal: Journal,
    pub(crate) boot: String,
    pub(crate) events: Events,
    pub(crate) tasks: TaskTracker,
    pub(crate) boots: Semaphore,
    pub(crate) waiting: AtomicU32,
    pub(crate) draining: AtomicBool,
    pub(crate) machine: Machine,
    /// Held by whoever makes room: two would make twice as much.
    pub(crate) evicting: tokio::sync::Mutex<()>,
    /// Held by whoever measures what is kept: it takes the disk's time.
    pub(crate) measuring: tokio::sync::Mutex<()>,
    /// Something that was leaving has left.
    pub(crate) left: Notify,
    hardware: Hardware,
    table: Mutex<Table>,
}

/// How long whoever is asked for waits for warm sandboxes to give way.
const GIVE_WAY_MAX: Duration = Duration::from_secs(3);
/// How often it is looked whether one that is being made or ends can give way by now.
const GIVE_WAY_LOOK: Duration = Duration::from_millis(20);
/// How long whoever wants a sandbox ended waits for it. Its end goes on without them.
const KILL_PATIENCE: Duration = Duration::from_secs(15);
impl Node {
    /// Takes over what the journal names, sweeps what it does not, and stands ready for calls.
    /// Needs a tokio runtime.
    pub async fn start(
        config: NodeConfig,
        runtime: Arc<dyn Runtime>,
        snapshots: Arc<dyn Snapshots>,
    ) -> Result<Self, StartError> {
        let journal = Journal::open(&config.journal_dir)?;
        let boot = journal::boot_id().map_err(StartError::Boot)?;
        let inner = Arc::new(Inner {
            boots: Semaphore::new(config.boots_max),
            config,
            runtime,
            snapshots,
            journal,
            boot,
            events: Events::default(),
            tasks: TaskTracker::new(),
            table: Mutex::default(),
            waiting: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            machine: Machine::default(),
            evicting: tokio::sync::Mutex::default(),
            measuring: tokio::sync::Mutex::default(),
            left: Notify::new(),
            hardware: Hardware::look(),
        });
        crate::start::take_over(&inner).await?;
        Ok(Self { inner })
    }

    /// What sandboxes can be made of from now on.
    pub fn offer(&self, offer: Offer) {
        self.inner.lock().offer = offer;
        self.inner
            .events
            .publish(NodeEvent::Heartbeat(Box::new(self.inner.info())));
    }

    /// Refuses new sandboxes and waits until none is half made. What runs goes on. Nothing is evicted from
    /// then on: a successor may have begun with it.
    pub async fn drain(&self) {
        self.inner.draining.store(true, Ordering::SeqCst);
        drop(self.inner.evicting.lock().await);
        // Whoever holds all permits knows that nobody boots.
        let all = u32::try_from(self.inner.config.boots_max).unwrap_or(u32::MAX);
        drop(self.inner.boots.acquire_many(all).await);
    }

    /// Takes creates again after a [`Node::drain`].
    pub fn undrain(&self) {
        self.inner.draining.store(false, Ordering::SeqCst);
    }

    /// What runs now.
    pub fn running(&self) -> Vec<RunningSandbox> {
        self.inner.running()
    }
}

impl Inner {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no holder of this lock panics")
    }

    pub(crate) fn offered(&self) -> Offer {
        self.lock().offer.clone()
    }

    /// Has its task finish a pause that keeps files alone.
    pub(crate) fn give_up_processes(&self, sandbox: &SandboxId, reason: PauseReason) {
        if let Some(Row::Running { commands, .. }) = self.lock().sandboxes.get(sandbox) {
            // It was just made: there is room.
            let _ = commands.try_send(Command::GiveUpProcesses(reason));
        }
    }

    /// Whether one more sandbox fits among those that run. One that goes on with its processes needs
    /// no disk, for what it wrote lies where it was: its owner may want to remove some.
    pub(crate) fn admit(
        &self,
        table: &Table,
        resources: &Resources,
        goes_on: bool,
    ) -> Result<(), NodeError> {
        let mut load = self.load(table);
        if goes_on {
            (load.disk_free_bytes, load.layers_left_bytes) = (u64::MAX, u64::MAX);
        }
        self.config.admission.admit(&load, resources)
    }

    pub(crate) fn load(&self, table: &Table) -> Load {
        let machine = self.machine.recent(&self.config.journal_dir);
        Load {
            sandboxes: table.awake(),
            memory_promised_bytes: table.memory_promised_bytes,
            memory_total_bytes: machine.memory_total_bytes,
            memory_available_bytes: machine.memory_available_bytes,
            disk_free_bytes: machine.disk_free_bytes,
            layers_left_bytes: self.runtime.stock().bytes_left.unwrap_or(u64::MAX),
        }
    }

    /// Takes a place. Where a disk is full, what lies in the bucket too goes for it; then warm sandboxes
    /// give way one after the other, if that can help.
    pub(crate) async fn with_room<T>(
        self: &Arc<Self>,
        resources: &Resources,
        mut take: impl FnMut() -> Result<T, NodeError>,
    ) -> Result<T, NodeError> {
        let end = tokio::time::Instant::now() + GIVE_WAY_MAX;
        loop {
            let full = match take() {
                Err(full @ (NodeError::Full { .. } | NodeError::DiskFull { .. })) => full,
                taken => return taken,
            };
            if matches!(full, NodeError::DiskFull { .. }) && self.make_room().await {
                continue;
            }
            let next = {
                let table = self.lock();
                let fits = self.admit_without_warm(&table, resources).is_ok();
                let there = fits && table.warm() > 0;
                there.then(|| table.longest_warm())
            };
            let Some(next) = next.filter(|_| tokio::time::Instant::now() < end) else {
                return Err(full);
            };
            match next {
                // Whatever comes of it: it is gone, somebody's, or ends without us. Another may be
                // left.
                Some((sandbox, commands)) => {
                    let gives = give(commands, &sandbox, |done| Command::GiveWay { done });
                    drop(tokio::time::timeout_at(end, gives).await);
                    self.machine.forget();
                }
                // They are being made, or end.
                None => tokio::time::sleep(GIVE_WAY_LOOK).await,
            }
        }
    }

    /// Whether it would fit if no warm sandbox were there. What memory and disk they hold is not known:
    /// it may be enough.
    fn admit_without_warm(&self, table: &Table, resources: &Resources) -> Result<(), NodeError> {
        let load = Load {
            sandboxes: table.awake() - table.warm(),
            memory_promised_bytes: table.memory_promised_bytes - table.memory_warm_bytes(),
            memory_available_bytes: u64::MAX,
            disk_free_bytes: u64::MAX,
            layers_left_bytes: u64::MAX,
            ..self.load(table)
        };
        self.config.admission.admit(&load, resources)
    }

    /// The sandbox is gone: nothing remembers it.
    pub(crate) fn forget(&self, entry: &Entry) {
        if let Err(failed) = self.journal.remove(&entry.sandbox) {
            let error = chain(&failed);
            error!(sandbox.id = %entry.sandbox, error, "cannot remove a journal entry");
        }
        self.release(&entry.sandbox);
    }

    /// Of one that takes orders. One that is being ended takes none: it would answer only when it
    /// is gone.
    pub(crate) fn commands(&self, sandbox: &SandboxId) -> Result<mpsc::Sender<Command>, NodeError> {
        match self.lock().sandboxes.get(sandbox) {
            Some(Row::Running {
                commands,
                ending: false,
                ..
            }) => Ok(commands.clone()),
            Some(Row::Running { .. } | Row::Booting { .. }) | None => {
                Err(NodeError::NotFound(sandbox.clone()))
            }
        }
    }

    pub(crate) async fn command<T>(
        &self,
        sandbox: &SandboxId,
        command: impl FnOnce(Done<T>) -> Command,
    ) -> Result<T, NodeError> {
        give(self.commands(sandbox)?, sandbox, command).await
    }

    /// Answers when it is gone, or after [`KILL_PATIENCE`].
    pub(crate) async fn kill(
        &self,
        sandbox: &SandboxId,
        reason: EndReason,
    ) -> Result<(), NodeError> {
        let commands = match self.lock().sandboxes.get(sandbox) {
            Some(Row::Running { commands, .. }) => commands.clone(),
            Some(Row::Booting { .. }) | None => {
                return Err(NodeError::NotFound(sandbox.clone()));
            }
        };
        let killed = give(commands, sandbox, |done| Command::Kill { reason, done });
        match tokio::time::timeout(KILL_PATIENCE, killed).await {
            Ok(killed) => killed,
            Err(_) => Err(NodeError::StillEnding(sandbox.clone())),
        }
    }

    pub(crate) fn info(&self) -> NodeInfo {
        let machine = Measured::now(&self.config.journal_dir);
        let stock = self.runtime.stock();
        let cpu_percent = self.hardware.cpu_percent();
        let disk = hardware::disk(&self.config.journal_dir);
        let table = self.lock();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        NodeInfo {
            node: self.config.name.clone(),
            version: self.config.version.clone(),
            ready: !table.offer.templates.is_empty() && !self.draining.load(Ordering::SeqCst),
            sandboxes: table.awake() - table.warm(),
            sandboxes_warm: table.warm(),
            sandboxes_paused: count(table.rests().count()),
            sandboxes_max: self.config.admission.sandboxes_max,
            queue_length: self.waiting.load(Ordering::Relaxed),
            slots_ready: count(stock.slots_ready),
            layers_ready: count(stock.layers_ready),
            cpu_count: count(std::thread::available_parallelism().map_or(1, usize::from)),
            memory_total_bytes: machine.memory_total_bytes,
            memory_available_bytes: machine.memory_available_bytes,
            disk_free_bytes: machine.disk_free_bytes,
            disk_reserve_bytes: self.config.admission.disk_reserve_bytes,
            layers_left_bytes: stock.bytes_left.unwrap_or(u64::MAX),
            layers_full_ms_ago: stock
                .full_ago
                .map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            memory_promised_bytes: table.memory_promised_bytes,
            memory_promised_max_bytes: self
                .config
                .admission
                .memory_grant(machine.memory_total_bytes),
            cache: Some(self.cache_of(&table)),
            memory_paused_bytes: table.rests().map(|(_, rest)| rest.memory_bytes).sum(),
            vcpus_promised: table.sandboxes.values().map(Row::vcpus).sum(),
            cpu_percent,
            processor: self.hardware.processor.clone(),
            disk,
            disk_limit_enforced: self.runtime.capabilities().disk_limit == DiskLimit::Enforced,
            templates: table.offer.templates.clone(),
        }
    }
}

async fn give<T>(
    commands: mpsc::Sender<Command>,
    sandbox: &SandboxId,
    command: impl FnOnce(Done<T>) -> Command,
) -> Result<T, NodeError> {
    let gone = || NodeError::NotFound(sandbox.clone());
    let (done, answer) = oneshot::channel();
    commands.send(command(done)).await.map_err(|_| gone())?;
    answer.await.unwrap_or_else(|_| Err(gone()))
}

pub(crate) fn snapshot_error(error: SnapshotError) -> NodeError {
    match error {
        SnapshotError::NotFound(sandbox) => NodeError::NotFound(sandbox),
        SnapshotError::NoSnapshot(snapshot) => NodeError::NoSnapshot(snapshot),
        SnapshotError::Capacity(_) => NodeError::DiskFull {
            what: "the disk of sandboxes is full".into(),
        },
        SnapshotError::Exists(_) | SnapshotError::Step { .. } => internal(&error),
    }
}

pub(crate) fn runtime_error(error: RuntimeError) -> NodeError {
    match error {
        RuntimeError::NotFound(sandbox) => NodeError::NotFound(sandbox),
        RuntimeError::Step { .. } => internal(&error),
    }
}

pub(crate) fn internal(error: &dyn std::error::Error) -> NodeError {
    NodeError::Internal { why: chain(error) }
}
