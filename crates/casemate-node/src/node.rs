//! The node itself: the table of sandboxes and the calls of [`NodePort`].

use std::collections::{BTreeMap, HashSet};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use casemate_rpc::{
    CreateReply, CreateRequest, KeptSnapshot, NodeError, NodeEvent, NodeInfo, NodePort,
    NodeTemplate, PauseReply, PausedSandbox, ResumeReply, ResumeRequest, RunningSandbox,
    SNAPSHOTS_PAGE, SnapshotReply,
};
use casemate_runtime::{
    DialError, DiskLimit, Runtime, RuntimeError, Seen, SnapshotError, Snapshots,
};
use casemate_types::{
    CompiledPolicy, EndReason, Kept, PauseReason, Resources, SandboxId, SnapshotId, TeamId,
    Timestamp, chain, steady,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::admission::{Load, Machine, Measured};
use crate::create::Offer;
use crate::events::Events;
use crate::hardware::{self, Hardware};
use crate::journal::{self, Entry, Journal};
use crate::sandbox::{COMMANDS_MAX, Command, Done, own};
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
}

/// A node. Cheap to clone; all clones are the same node.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
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
    hardware: Hardware,
    table: Mutex<Table>,
}

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) sandboxes: BTreeMap<SandboxId, Row>,
    pub(crate) memory_promised_bytes: u64,
    pub(crate) offer: Offer,
}

pub(crate) enum Row {
    /// Being made: it holds its place.
    Booting { resources: Resources, exited: bool },
    Running {
        resources: Resources,
        shown: RunningSandbox,
        /// It rests.
        rest: Option<Box<Rest>>,
        /// Something ends it: it takes no more orders.
        ending: bool,
        /// When its log was read last, and before that its start; by the wall clock, as what is in
        /// the log.
        log_read_at: Timestamp,
        /// As in its journal entry.
        memory_kills: Option<u64>,
        commands: mpsc::Sender<Command>,
    },
}

/// What a paused sandbox is to the node.
#[derive(Clone)]
pub(crate) struct Rest {
    pub(crate) shown: PausedSandbox,
    /// Held by its processes; nothing where only files are kept.
    pub(crate) memory_bytes: u64,
}

impl Row {
    /// It takes a place: it is not paused.
    fn is_awake(&self) -> bool {
        !matches!(self, Self::Running { rest: Some(_), .. })
    }

    fn resources(&self) -> &Resources {
        match self {
            Self::Booting { resources, .. } | Self::Running { resources, .. } => resources,
        }
    }

    fn vcpus(&self) -> u32 {
        if self.is_awake() {
            self.resources().vcpus
        } else {
            0
        }
    }
}

impl Table {
    /// Those that run, or are being made.
    pub(crate) fn awake(&self) -> u32 {
        let awake = self.sandboxes.values().filter(|row| row.is_awake());
        u32::try_from(awake.count()).unwrap_or(u32::MAX)
    }

    fn rests(&self) -> impl Iterator<Item = (&SandboxId, &Rest)> {
        self.sandboxes.iter().filter_map(|(id, row)| match row {
            Row::Running { rest, .. } => rest.as_deref().map(|rest| (id, rest)),
            Row::Booting { .. } => None,
        })
    }
}

/// How long whoever wants a sandbox ended waits for it. Its end goes on without them.
const KILL_PATIENCE: Duration = Duration::from_secs(15);
/// What is to be known of a sandbox that samples are taken of.
pub(crate) struct Sampled {
    pub(crate) sandbox: SandboxId,
    pub(crate) team: TeamId,
    pub(crate) resources: Resources,
    pub(crate) started_at: Timestamp,
}

const MIB: u64 = 1024 * 1024;

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
            hardware: Hardware::look(),
        });
        crate::start::take_over(&inner).await?;
        Ok(Self { inner })
    }

    /// What sandboxes can be made of from now on: templates with their layers under `layers_dir`,
    /// the operator's layer above them, and variables that every sandbox gets.
    pub fn offer(
        &self,
        templates: Vec<NodeTemplate>,
        layers_dir: PathBuf,
        site: Option<PathBuf>,
        envs: BTreeMap<String, String>,
    ) {
        self.inner.lock().offer = Offer {
            templates,
            layers_dir,
            site,
            envs,
        };
        self.inner
            .events
            .publish(NodeEvent::Heartbeat(Box::new(self.inner.info())));
    }

    /// Refuses new sandboxes and waits until none is half made. What runs goes on.
    pub async fn drain(&self) {
        self.inner.draining.store(true, Ordering::SeqCst);
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

    /// Puts a sandbox that runs into the table and gives it its task.
    pub(crate) fn own(self: &Arc<Self>, entry: Entry) {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let shown = running(&entry);
        let row = Row::Running {
            resources: entry.resources,
            shown: shown.clone(),
            rest: None,
            ending: false,
            log_read_at: steady::to_wall(entry.started_at),
            memory_kills: entry.memory_kills,
            commands,
        };
        let former = {
            let mut table = self.lock();
            let former = table.sandboxes.insert(entry.sandbox.clone(), row);
            if former.is_none() {
                table.memory_promised_bytes += memory_bytes(&entry.resources);
            }
            former
        };
        if matches!(former, Some(Row::Booting { exited: true, .. })) {
            self.exited(&entry.sandbox);
        }
        self.events.publish(NodeEvent::Running(shown));
        self.tasks.spawn(own(Arc::clone(self), entry, inbox));
    }

    /// The same of one that rests.
    pub(crate) fn own_paused(self: &Arc<Self>, entry: Entry, memory_bytes: u64) {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let rest = paused(&entry).map(|shown| {
            Box::new(Rest {
                shown,
                memory_bytes,
            })
        });
        let row = Row::Running {
            resources: entry.resources,
            shown: running(&entry),
            rest,
            ending: false,
            log_read_at: steady::to_wall(entry.started_at),
            memory_kills: entry.memory_kills,
            commands,
        };
        self.lock().sandboxes.insert(entry.sandbox.clone(), row);
        if let Some(shown) = paused(&entry) {
            self.events.publish(NodeEvent::Paused(shown));
        }
        self.tasks.spawn(own(Arc::clone(self), entry, inbox));
    }

    /// It rests from now on, as its entry says.
    pub(crate) fn note_paused(&self, entry: &Entry, memory_bytes: u64) {
        let Some(shown) = paused(entry) else { return };
        {
            let mut table = self.lock();
            let table = &mut *table;
            if let Some(row) = table.sandboxes.get_mut(&entry.sandbox) {
                if row.is_awake() {
                    table.memory_promised_bytes -= memory_bytes_of(row);
                }
                if let Row::Running { rest, .. } = row {
                    let shown = shown.clone();
                    *rest = Some(Box::new(Rest {
                        shown,
                        memory_bytes,
                    }));
                }
            }
        }
        self.events.publish(NodeEvent::Paused(shown));
    }

    /// It runs from now on, as its entry says. Its place was taken by [`Inner::admit_back`], and may
    /// have been given up since by a pause that kept less.
    pub(crate) fn note_resumed(&self, entry: &Entry) {
        let running = running(entry);
        {
            let mut table = self.lock();
            let table = &mut *table;
            if let Some(row) = table.sandboxes.get_mut(&entry.sandbox) {
                if !row.is_awake() {
                    table.memory_promised_bytes += memory_bytes_of(row);
                }
                if let Row::Running {
                    shown,
                    memory_kills,
                    rest,
                    ..
                } = row
                {
                    *rest = None;
                    *shown = running.clone();
                    *memory_kills = entry.memory_kills;
                }
            }
        }
        self.events.publish(NodeEvent::Running(running));
    }

    /// Gives a paused sandbox its place among those that run; what it was, to be put back.
    pub(crate) fn admit_back(&self, sandbox: &SandboxId) -> Result<Box<Rest>, NodeError> {
        let mut table = self.lock();
        let gone = || NodeError::NotFound(sandbox.clone());
        let row = table.sandboxes.get(sandbox).ok_or_else(gone)?;
        let resources = *row.resources();
        self.admit(&table, &resources)?;
        let row = table.sandboxes.get_mut(sandbox).ok_or_else(gone)?;
        let Row::Running { rest, .. } = row else {
            return Err(gone());
        };
        let rest = rest
            .take()
            .ok_or_else(|| NodeError::Exists(sandbox.clone()))?;
        table.memory_promised_bytes += memory_bytes(&resources);
        Ok(rest)
    }

    /// It did not go on: it rests as before.
    pub(crate) fn put_back(&self, sandbox: &SandboxId, before: Box<Rest>) {
        {
            let mut table = self.lock();
            let table = &mut *table;
            if let Some(row) = table.sandboxes.get_mut(sandbox) {
                if row.is_awake() {
                    table.memory_promised_bytes -= memory_bytes_of(row);
                }
                if let Row::Running { rest, .. } = row {
                    *rest = Some(before.clone());
                }
            }
        }
        // Whoever looked in between saw one that runs.
        self.events.publish(NodeEvent::Paused(before.shown));
    }

    /// Lets those that rested for longest give up their processes until the others are no more, and
    /// hold no more memory, than they may.
    pub(crate) fn bound_paused(&self) {
        let table = self.lock();
        let mut held: Vec<_> = table
            .rests()
            .filter(|(_, rest)| rest.shown.kept == Kept::Memory)
            .map(|(id, rest)| (rest.shown.at, rest.memory_bytes, id))
            .collect();
        held.sort();
        let mut sum: u64 = held.iter().map(|(_, bytes, _)| bytes).sum();
        let mut left = held.len();
        for (_, bytes, id) in held {
            if sum <= self.config.paused_memory_bytes && left <= self.config.paused_max {
                return;
            }
            let Some(Row::Running { commands, .. }) = table.sandboxes.get(id) else {
                continue;
            };
            // One that is busy is passed over; the next pause looks again.
            let give_up = Command::GiveUpProcesses(PauseReason::MemoryBound);
            if commands.try_send(give_up).is_ok() {
                sum -= bytes;
                left -= 1;
            }
        }
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

    /// Whether one more sandbox fits among those that run.
    pub(crate) fn admit(&self, table: &Table, resources: &Resources) -> Result<(), NodeError> {
        let machine = self.machine.recent(&self.config.journal_dir);
        let load = Load {
            sandboxes: table.awake(),
            memory_promised_bytes: table.memory_promised_bytes,
            memory_total_bytes: machine.memory_total_bytes,
            memory_available_bytes: machine.memory_available_bytes,
            disk_free_bytes: machine.disk_free_bytes,
            layers_left_bytes: self.runtime.stock().bytes_left.unwrap_or(u64::MAX),
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

    pub(crate) fn note_deadline(&self, sandbox: &SandboxId, at: Timestamp) {
        if let Some(Row::Running { shown, .. }) = self.lock().sandboxes.get_mut(sandbox) {
            shown.ends_at = at;
        }
    }

    pub(crate) fn note_recorded(&self, sandbox: &SandboxId) {
        if let Some(Row::Running { shown, rest, .. }) = self.lock().sandboxes.get_mut(sandbox) {
            shown.recorded = true;
            if let Some(rest) = rest {
                rest.shown.recorded = true;
            }
        }
    }

    pub(crate) fn note_memory_kills(&self, sandbox: &SandboxId, counted: u64) {
        if let Some(Row::Running { memory_kills, .. }) = self.lock().sandboxes.get_mut(sandbox) {
            *memory_kills = Some(counted);
        }
    }

    /// Lets the tasks of those whose count is not the one that was told tell of it.
    pub(crate) fn pass_on_memory_kills(&self, seen: &[Seen]) {
        let table = self.lock();
        for one in seen {
            let Some(Row::Running {
                memory_kills,
                commands,
                ..
            }) = table.sandboxes.get(&one.sandbox)
            else {
                continue;
            };
            if *memory_kills != Some(one.memory_kills) {
                // Where there is no room the next look passes it on.
                let _ = commands.try_send(Command::MemoryKills(one.memory_kills));
            }
        }
    }

    pub(crate) fn note_ending(&self, sandbox: &SandboxId) {
        if let Some(Row::Running { ending, .. }) = self.lock().sandboxes.get_mut(sandbox) {
            *ending = true;
        }
    }

    /// Its log is read now: whose it is, and when that was done before.
    pub(crate) fn note_log_read(
        &self,
        sandbox: &SandboxId,
        at: Timestamp,
    ) -> Option<(TeamId, Timestamp)> {
        match self.lock().sandboxes.get_mut(sandbox)? {
            Row::Running {
                shown, log_read_at, ..
            } => {
                let before = std::mem::replace(log_read_at, at);
                // The wall clock may have been set back.
                Some((shown.team.clone(), before.min(at)))
            }
            Row::Booting { .. } => None,
        }
    }

    pub(crate) fn exited(&self, sandbox: &SandboxId) {
        match self.lock().sandboxes.get_mut(sandbox) {
            // Control gives orders for one sandbox one after the other, so there is room.
            Some(Row::Running { commands, .. }) => {
                let sent = commands.try_send(Command::Exited);
                if let Err(error) = sent {
                    warn!(sandbox.id = %sandbox, %error, "a sandbox's end is noted late");
                }
            }
            // It ended between its readiness and its task.
            Some(Row::Booting { exited, .. }) => *exited = true,
            None => {}
        }
    }

    pub(crate) fn release(&self, sandbox: &SandboxId) {
        let mut table = self.lock();
        if let Some(row) = table.sandboxes.remove(sandbox)
            && row.is_awake()
        {
            table.memory_promised_bytes -= memory_bytes_of(&row);
        }
    }

    /// Of one that takes orders. One that is being ended takes none: it would answer only when it
    /// is gone.
    fn commands(&self, sandbox: &SandboxId) -> Result<mpsc::Sender<Command>, NodeError> {
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

    /// Whether it rests, and with what.
    pub(crate) fn rests_with(&self, sandbox: &SandboxId) -> Option<Kept> {
        match self.lock().sandboxes.get(sandbox)? {
            Row::Running { rest, .. } => rest.as_ref().map(|rest| rest.shown.kept),
            Row::Booting { .. } => None,
        }
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

    fn running(&self) -> Vec<RunningSandbox> {
        let shown = |row: &Row| match row {
            Row::Running {
                shown, rest: None, ..
            } => Some(shown.clone()),
            Row::Running { .. } | Row::Booting { .. } => None,
        };
        self.lock().sandboxes.values().filter_map(shown).collect()
    }

    fn paused(&self) -> Vec<PausedSandbox> {
        let table = self.lock();
        table.rests().map(|(_, rest)| rest.shown.clone()).collect()
    }

    /// Those among these that rest.
    pub(crate) fn resting(&self) -> HashSet<SandboxId> {
        self.lock().rests().map(|(id, _)| id.clone()).collect()
    }

    /// Whether no sandbox is there, running or being made.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().sandboxes.is_empty()
    }

    /// Those that run and are wanted.
    pub(crate) fn sampled(&self, is_wanted: impl Fn(&SandboxId) -> bool) -> Vec<Sampled> {
        let sampled = |row: &Row| match row {
            Row::Running { rest: Some(_), .. } => None,
            Row::Running { shown, .. } if !is_wanted(&shown.sandbox) => None,
            Row::Running {
                resources, shown, ..
            } => Some(Sampled {
                sandbox: shown.sandbox.clone(),
                team: shown.team.clone(),
                resources: *resources,
                started_at: shown.started_at,
            }),
            Row::Booting { .. } => None,
        };
        self.lock().sandboxes.values().filter_map(sampled).collect()
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
            sandboxes: table.awake(),
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
            memory_promised_bytes: table.memory_promised_bytes,
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

#[async_trait]
impl NodePort for Node {
    async fn create(&self, request: CreateRequest) -> Result<CreateReply, NodeError> {
        self.inner.create(request).await
    }

    async fn kill(&self, sandbox: &SandboxId, reason: EndReason) -> Result<(), NodeError> {
        self.inner.kill(sandbox, reason).await
    }

    async fn recorded(&self, sandboxes: &[SandboxId]) -> Result<(), NodeError> {
        for sandbox in sandboxes {
            // One that has ended meanwhile needs no mark.
            if let Ok(commands) = self.inner.commands(sandbox) {
                let _ = commands.send(Command::Recorded).await;
            }
        }
        Ok(())
    }

    async fn set_deadline(&self, sandbox: &SandboxId, ends_at: Timestamp) -> Result<(), NodeError> {
        self.inner
            .command(sandbox, |done| Command::SetDeadline { ends_at, done })
            .await
    }

    async fn set_network(
        &self,
        sandbox: &SandboxId,
        policy: CompiledPolicy,
    ) -> Result<(), NodeError> {
        self.inner
            .command(sandbox, |done| Command::SetNetwork { policy, done })
            .await
    }

    async fn pause(&self, sandbox: &SandboxId, kept: Kept) -> Result<PauseReply, NodeError> {
        self.inner
            .command(sandbox, |done| Command::Pause { kept, done })
            .await
    }

    async fn resume(&self, request: ResumeRequest) -> Result<ResumeReply, NodeError> {
        self.inner.resume(request).await
    }

    async fn snapshot(
        &self,
        sandbox: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<SnapshotReply, NodeError> {
        let snapshot = snapshot.clone();
        self.inner
            .command(sandbox, |done| Command::Snapshot { snapshot, done })
            .await
    }

    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<(), NodeError> {
        let removed = self.inner.snapshots.remove(snapshot).await;
        removed.map_err(snapshot_error)
    }

    async fn snapshots(&self, after: Option<&SnapshotId>) -> Result<Vec<KeptSnapshot>, NodeError> {
        let kept = self.inner.snapshots.list().await.map_err(snapshot_error)?;
        let asked = kept
            .into_iter()
            .filter(|(id, _)| !id.is_of_pause() && after.is_none_or(|after| id > after))
            .map(|(snapshot, bytes)| KeptSnapshot { snapshot, bytes });
        Ok(asked.take(SNAPSHOTS_PAGE).collect())
    }

    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<TcpStream, NodeError> {
        self.inner.commands(sandbox)?;
        if self.inner.rests_with(sandbox).is_some() {
            return Err(NodeError::Paused(sandbox.clone()));
        }
        self.inner
            .runtime
            .dial(sandbox, port)
            .await
            .map_err(|error| match error {
                DialError::NotFound(sandbox) => NodeError::NotFound(sandbox),
                DialError::PortClosed { sandbox, port } => NodeError::PortClosed { sandbox, port },
                DialError::Io { .. } => internal(&error),
            })
    }

    async fn info(&self) -> Result<NodeInfo, NodeError> {
        Ok(self.inner.info())
    }

    async fn watch(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        let node = &self.inner;
        let info = NodeEvent::Heartbeat(Box::new(node.info()));
        let running = || node.running().into_iter().map(NodeEvent::Running);
        let paused = || node.paused().into_iter().map(NodeEvent::Paused);
        let first = || [info].into_iter().chain(running()).chain(paused());
        Ok(node.events.watch(|| first().collect()))
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

pub(crate) fn memory_bytes(resources: &Resources) -> u64 {
    u64::from(resources.memory_mib) * MIB
}

fn memory_bytes_of(row: &Row) -> u64 {
    memory_bytes(row.resources())
}

fn running(entry: &Entry) -> RunningSandbox {
    RunningSandbox {
        sandbox: entry.sandbox.clone(),
        team: entry.team.clone(),
        template: entry.template.clone(),
        started_at: entry.started_at,
        ends_at: entry.ends_at,
        recorded: entry.recorded,
    }
}

fn paused(entry: &Entry) -> Option<PausedSandbox> {
    let pause = entry.pause.as_ref()?;
    Some(PausedSandbox {
        sandbox: entry.sandbox.clone(),
        team: entry.team.clone(),
        template: entry.template.clone(),
        started_at: entry.started_at,
        at: pause.at,
        kept: pause.kept,
        reason: pause.reason,
        recorded: entry.recorded,
    })
}

pub(crate) fn snapshot_error(error: SnapshotError) -> NodeError {
    match error {
        SnapshotError::NotFound(sandbox) => NodeError::NotFound(sandbox),
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
