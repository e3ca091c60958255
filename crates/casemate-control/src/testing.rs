//! A node without sandboxes, for tests of what stands above the port.
//!
//! It keeps the contract of [`NodePort`] (order of calls, ends by time, one watcher) and lets a
//! test break it on purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use casemate_rpc::{
    CreateReply, CreateRequest, KeptSnapshot, NodeDisk, NodeError, NodeEvent, NodeInfo, NodePort,
    NodeProcessor, NodeTemplate, PauseReply, PausedSandbox, ResumeReply, ResumeRequest,
    RunningSandbox, SnapshotReply,
};
use casemate_types::{
    CompiledPolicy, EndReason, Kept, OnTimeout, PauseReason, Resources, Sample, SandboxId,
    SnapshotId, TeamId, TemplateId, Timestamp, Usage,
};
use tokio::sync::{Notify, mpsc};

const EVENTS: usize = 4096;
/// How often the fake looks for deadlines.
const CLOCK: Duration = Duration::from_millis(20);

/// See the module. Clones are the same node.
#[derive(Clone)]
pub struct FakeNode {
    state: Arc<Mutex<State>>,
    released: Arc<Notify>,
}

struct State {
    running: BTreeMap<SandboxId, Entry>,
    events: Option<mpsc::Sender<NodeEvent>>,
    template: NodeTemplate,
    failure: Option<NodeError>,
    reachable: bool,
    held: bool,
    creates: usize,
    kills: usize,
    resisting: BTreeSet<SandboxId>,
    held_pauses: bool,
    failing_pauses: bool,
    snapshots: BTreeSet<SnapshotId>,
}

struct Entry {
    facts: RunningSandbox,
    policy: CompiledPolicy,
    access_token: Option<String>,
    envs: BTreeMap<String, String>,
    files: Option<SnapshotId>,
    rest: Option<Rest>,
}

#[derive(Clone, Copy)]
struct Rest {
    at: Timestamp,
    kept: Kept,
    reason: PauseReason,
}

impl Default for FakeNode {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeNode {
    /// A ready node with the base template.
    pub fn new() -> Self {
        let state = State {
            running: BTreeMap::new(),
            events: None,
            template: base_template(),
            failure: None,
            reachable: true,
            held: false,
            creates: 0,
            kills: 0,
            resisting: BTreeSet::new(),
            held_pauses: false,
            failing_pauses: false,
            snapshots: BTreeSet::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            released: Arc::new(Notify::new()),
        }
    }

    /// Starts the clock that ends sandboxes at their deadline; needs a runtime.
    pub fn start_clock(&self) {
        let state = Arc::downgrade(&self.state);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(CLOCK).await;
                let Some(state) = state.upgrade() else { return };
                let mut state = lock(&state);
                let now = Timestamp::now();
                let due = |(id, e): (&SandboxId, &Entry)| {
                    let due = e.rest.is_none() && e.facts.ends_at <= now;
                    due.then(|| (id.clone(), e.facts.on_timeout))
                };
                let due: Vec<_> = state.running.iter().filter_map(due).collect();
                for (id, on_timeout) in due {
                    match on_timeout {
                        OnTimeout::Kill => drop(state.end(&id, EndReason::Expired)),
                        OnTimeout::Pause(kept) => state.rest(&id, kept, PauseReason::Expired),
                    }
                }
            }
        });
    }

    /// Every create from now on fails so; `None` makes them work again.
    pub fn fail_creates(&self, failure: Option<NodeError>) {
        self.lock().failure = failure;
    }

    /// Pauses wait until [`FakeNode::release_pauses`].
    pub fn hold_pauses(&self) {
        self.lock().held_pauses = true;
    }

    pub fn release_pauses(&self) {
        self.lock().held_pauses = false;
        self.released.notify_waiters();
    }

    /// Every pause from now on fails.
    pub fn fail_pauses(&self) {
        self.lock().failing_pauses = true;
    }

    /// The deadline of one has come, and it is one that rests then.
    pub fn pause_by_deadline(&self, sandbox: &SandboxId) {
        self.lock()
            .rest(sandbox, Kept::Memory, PauseReason::Expired);
    }

    /// A paused one loses its processes, and everybody is told why.
    pub fn lose_processes(&self, sandbox: &SandboxId) {
        let reason = PauseReason::ProcessesLost;
        self.lock().rest(sandbox, Kept::Files, reason);
    }

    /// It goes on, to be paused at its deadline, and nobody hears of it.
    pub fn resume_unheard(&self, sandbox: &SandboxId) {
        if let Some(entry) = self.lock().running.get_mut(sandbox) {
            entry.rest = None;
            entry.facts.started_at = Timestamp::now();
            entry.facts.ends_at = Timestamp::now() + Duration::from_secs(300);
            entry.facts.on_timeout = OnTimeout::Pause(Kept::Memory);
        }
    }

    /// What is kept of a paused one.
    pub fn kept(&self, sandbox: &SandboxId) -> Option<Kept> {
        Some(self.lock().running.get(sandbox)?.rest?.kept)
    }

    /// The variables with which it was started last.
    pub fn envs(&self, sandbox: &SandboxId) -> Option<BTreeMap<String, String>> {
        Some(self.lock().running.get(sandbox)?.envs.clone())
    }

    /// The kept files that it was made with.
    pub fn began_with(&self, sandbox: &SandboxId) -> Option<SnapshotId> {
        self.lock().running.get(sandbox)?.files.clone()
    }

    pub fn snapshot_ids(&self) -> BTreeSet<SnapshotId> {
        self.lock().snapshots.clone()
    }

    /// Creates wait until [`FakeNode::release_creates`].
    pub fn hold_creates(&self) {
        self.lock().held = true;
    }

    /// It cannot be ended: whoever wants that waits for ever.
    pub fn resist(&self, sandbox: &SandboxId) {
        self.lock().resisting.insert(sandbox.clone());
    }

    pub fn release_creates(&self) {
        self.lock().held = false;
        self.released.notify_waiters();
    }

    /// The connection breaks; sandboxes run on.
    pub fn disconnect(&self) {
        let mut state = self.lock();
        state.reachable = false;
        state.events = None;
    }

    pub fn reconnect(&self) {
        self.lock().reachable = true;
    }

    /// The sandbox ends by itself; nobody is told when the connection is broken.
    pub fn exit(&self, sandbox: &SandboxId) {
        self.lock().end(sandbox, EndReason::Exited);
    }

    /// Says what a sandbox uses, as its node does every few seconds.
    pub fn sample(&self, sandbox: &SandboxId, at: Timestamp, usage: Usage) {
        let mut state = self.lock();
        let Some(entry) = state.running.get(sandbox) else {
            return;
        };
        let sample = Sample {
            sandbox: sandbox.clone(),
            team: entry.facts.team.clone(),
            at,
            usage,
        };
        state.tell(NodeEvent::Samples(vec![sample]));
    }

    /// The sandbox writes to its log, and the node has read it.
    pub fn write_log(&self, sandbox: &SandboxId, lines: &str) {
        let mut state = self.lock();
        let Some(entry) = state.running.get(sandbox) else {
            return;
        };
        let event = NodeEvent::Log {
            sandbox: sandbox.clone(),
            team: entry.facts.team.clone(),
            since: entry.facts.started_at,
            at: Timestamp::now(),
            lines: lines.into(),
        };
        state.tell(event);
    }

    /// The kernel ended a process of the sandbox, whose memory was full.
    pub fn fill_memory(&self, sandbox: &SandboxId) {
        let mut state = self.lock();
        let Some(entry) = state.running.get(sandbox) else {
            return;
        };
        let event = NodeEvent::MemoryFull {
            sandbox: sandbox.clone(),
            team: entry.facts.team.clone(),
            at: Timestamp::now(),
            processes: 1,
        };
        state.tell(event);
    }

    /// The sandbox vanishes without a word.
    pub fn lose(&self, sandbox: &SandboxId) {
        self.lock().running.remove(sandbox);
    }

    /// Something runs that control knows nothing of; the node may have been told that it has a row.
    pub fn run_stranger(&self, sandbox: &SandboxId, team: &TeamId, recorded: bool) {
        let now = Timestamp::now();
        let facts = RunningSandbox {
            sandbox: sandbox.clone(),
            team: team.clone(),
            template: self.lock().template.template.clone(),
            started_at: now,
            ends_at: now + Duration::from_secs(3600),
            on_timeout: OnTimeout::Kill,
            recorded,
        };
        self.lock().begin(Entry {
            facts,
            policy: CompiledPolicy::open(),
            access_token: None,
            envs: BTreeMap::new(),
            files: None,
            rest: None,
        });
    }

    pub fn running(&self) -> Vec<SandboxId> {
        self.lock().running.keys().cloned().collect()
    }

    /// Creates that were asked for, whatever became of them.
    pub fn creates(&self) -> usize {
        self.lock().creates
    }

    /// Kills that were asked for, heard or not.
    pub fn kills(&self) -> usize {
        self.lock().kills
    }

    pub fn ends_at(&self, sandbox: &SandboxId) -> Option<Timestamp> {
        Some(self.lock().running.get(sandbox)?.facts.ends_at)
    }

    pub fn policy(&self, sandbox: &SandboxId) -> Option<CompiledPolicy> {
        Some(self.lock().running.get(sandbox)?.policy.clone())
    }

    pub fn access_token(&self, sandbox: &SandboxId) -> Option<String> {
        self.lock().running.get(sandbox)?.access_token.clone()
    }

    pub fn template(&self) -> TemplateId {
        self.lock().template.template.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn reachable(&self) -> Result<MutexGuard<'_, State>, NodeError> {
        let state = self.lock();
        if state.reachable {
            Ok(state)
        } else {
            Err(NodeError::Unreachable)
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state
        .lock()
        .expect("no code panics while it holds this lock")
}

impl Entry {
    fn paused(&self) -> Option<PausedSandbox> {
        let rest = self.rest?;
        Some(PausedSandbox {
            sandbox: self.facts.sandbox.clone(),
            team: self.facts.team.clone(),
            template: self.facts.template.clone(),
            started_at: self.facts.started_at,
            at: rest.at,
            kept: rest.kept,
            reason: rest.reason,
            recorded: self.facts.recorded,
        })
    }
}

impl State {
    fn begin(&mut self, entry: Entry) {
        self.tell(NodeEvent::Running(entry.facts.clone()));
        self.running.insert(entry.facts.sandbox.clone(), entry);
    }

    /// Pauses it, or keeps less of it.
    fn rest(&mut self, sandbox: &SandboxId, kept: Kept, reason: PauseReason) {
        let Some(entry) = self.running.get_mut(sandbox) else {
            return;
        };
        let at = entry.rest.map_or_else(Timestamp::now, |rest| rest.at);
        entry.rest = Some(Rest { at, kept, reason });
        if let Some(paused) = entry.paused() {
            self.tell(NodeEvent::Paused(paused));
        }
    }

    fn end(&mut self, sandbox: &SandboxId, reason: EndReason) -> bool {
        let known = self.running.remove(sandbox).is_some();
        if known {
            self.tell(NodeEvent::Ended {
                sandbox: sandbox.clone(),
                reason,
                at: Timestamp::now(),
            });
        }
        known
    }

    fn tell(&mut self, event: NodeEvent) {
        if let Some(events) = &self.events
            && events.try_send(event).is_err()
        {
            self.events = None;
        }
    }

    fn info(&self) -> NodeInfo {
        NodeInfo {
            node: "fake".into(),
            version: "0.1.0".into(),
            ready: true,
            sandboxes: u32::try_from(self.running.len()).unwrap_or(u32::MAX),
            sandboxes_paused: 0,
            sandboxes_max: 1000,
            queue_length: 0,
            slots_ready: 8,
            layers_ready: 8,
            cpu_count: 2,
            memory_total_bytes: 8 << 30,
            memory_available_bytes: 4 << 30,
            disk_free_bytes: 16 << 30,
            disk_reserve_bytes: 1 << 29,
            layers_left_bytes: 8 << 30,
            memory_promised_bytes: 0,
            memory_paused_bytes: 0,
            vcpus_promised: 4,
            cpu_percent: 25,
            processor: NodeProcessor {
                family: "25".into(),
                model: "1".into(),
                name: "A processor".into(),
                architecture: "x86_64".into(),
            },
            disk: Some(NodeDisk {
                mount_point: "/".into(),
                device: "/dev/vda".into(),
                file_system: "ext4".into(),
                used_bytes: 1 << 30,
                total_bytes: 16 << 30,
            }),
            disk_limit_enforced: true,
            templates: vec![self.template.clone()],
        }
    }

    fn entry(&mut self, sandbox: &SandboxId) -> Result<&mut Entry, NodeError> {
        let missing = || NodeError::NotFound(sandbox.clone());
        self.running.get_mut(sandbox).ok_or_else(missing)
    }
}

#[async_trait]
impl NodePort for FakeNode {
    async fn create(&self, request: CreateRequest) -> Result<CreateReply, NodeError> {
        self.reachable()?.creates += 1;
        // The node carries out what was sent to it, whether or not the caller waits.
        let node = self.clone();
        let work = tokio::spawn(async move {
            loop {
                let released = node.released.notified();
                if !node.lock().held {
                    break;
                }
                released.await;
            }
            let mut state = node.lock();
            if let Some(failure) = state.failure.clone() {
                return Err(failure);
            }
            if state.running.contains_key(&request.sandbox) {
                return Err(NodeError::Exists(request.sandbox));
            }
            if let Some(files) = &request.files
                && !state.snapshots.contains(files)
            {
                let why = "a snapshot is not here".to_owned();
                return Err(NodeError::Unsupported { why });
            }
            let started_at = Timestamp::now();
            let ends_at = started_at + Duration::from_millis(request.life_ms);
            let facts = RunningSandbox {
                sandbox: request.sandbox,
                team: request.team,
                template: request.template,
                started_at,
                ends_at,
                on_timeout: request.on_timeout,
                recorded: false,
            };
            state.begin(Entry {
                facts,
                policy: request.network,
                access_token: request.access_token,
                envs: request.envs,
                files: request.files,
                rest: None,
            });
            if !state.reachable {
                return Err(NodeError::Unreachable);
            }
            Ok(CreateReply {
                started_at,
                ends_at,
            })
        });
        let lost = |_| NodeError::Internal {
            why: "the fake's task ended".into(),
        };
        work.await.map_err(lost)?
    }

    async fn recorded(&self, sandboxes: &[SandboxId]) -> Result<(), NodeError> {
        let mut state = self.lock();
        if !state.reachable {
            return Err(NodeError::Unreachable);
        }
        for sandbox in sandboxes {
            if let Some(entry) = state.running.get_mut(sandbox) {
                entry.facts.recorded = true;
            }
        }
        Ok(())
    }

    async fn kill(&self, sandbox: &SandboxId, reason: EndReason) -> Result<(), NodeError> {
        self.lock().kills += 1;
        if self.lock().resisting.contains(sandbox) {
            std::future::pending::<()>().await;
        }
        // Calls for one sandbox take effect in order: behind a create that is held.
        loop {
            let released = self.released.notified();
            if !self.reachable()?.held {
                break;
            }
            released.await;
        }
        tokio::task::yield_now().await;
        if self.reachable()?.end(sandbox, reason) {
            Ok(())
        } else {
            Err(NodeError::NotFound(sandbox.clone()))
        }
    }

    async fn pause(&self, sandbox: &SandboxId, kept: Kept) -> Result<PauseReply, NodeError> {
        loop {
            let released = self.released.notified();
            if !self.reachable()?.held_pauses {
                break;
            }
            released.await;
        }
        let mut state = self.reachable()?;
        if state.failing_pauses {
            return Err(NodeError::PauseFailed {
                why: "told to fail".into(),
            });
        }
        let before = state.entry(sandbox)?.rest;
        if before.is_none_or(|rest| rest.kept == Kept::Memory && kept == Kept::Files) {
            state.rest(sandbox, kept, PauseReason::Asked);
        }
        let gone = || NodeError::NotFound(sandbox.clone());
        let rest = state.entry(sandbox)?.rest.ok_or_else(gone)?;
        Ok(PauseReply {
            at: rest.at,
            kept: rest.kept,
        })
    }

    async fn resume(&self, request: ResumeRequest) -> Result<ResumeReply, NodeError> {
        let mut state = self.reachable()?;
        if let Some(failure) = state.failure.clone() {
            return Err(failure);
        }
        let id = request.sandbox.sandbox.clone();
        if request.from == Kept::Files {
            // Said before it starts.
            state.rest(&id, Kept::Files, PauseReason::Asked);
        }
        let entry = state.entry(&id)?;
        let rest = entry.rest.take().ok_or(NodeError::Exists(id))?;
        let from = match (rest.kept, request.from) {
            (Kept::Memory, Kept::Memory) => Kept::Memory,
            (Kept::Memory | Kept::Files, _) => Kept::Files,
        };
        if from == Kept::Files {
            entry.envs = request.sandbox.envs;
            entry.access_token = request.sandbox.access_token;
            entry.facts.recorded = false;
        }
        entry.facts.on_timeout = request.sandbox.on_timeout;
        entry.facts.started_at = Timestamp::now();
        entry.facts.ends_at =
            entry.facts.started_at + Duration::from_millis(request.sandbox.life_ms);
        let facts = entry.facts.clone();
        state.tell(NodeEvent::Running(facts.clone()));
        Ok(ResumeReply {
            started_at: facts.started_at,
            ends_at: facts.ends_at,
            from,
        })
    }

    async fn snapshot(
        &self,
        sandbox: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<SnapshotReply, NodeError> {
        let mut state = self.reachable()?;
        if state.entry(sandbox)?.rest.is_some() {
            return Err(NodeError::Paused(sandbox.clone()));
        }
        state.snapshots.insert(snapshot.clone());
        Ok(SnapshotReply { frozen_us: 100 })
    }

    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<(), NodeError> {
        self.reachable()?.snapshots.remove(snapshot);
        Ok(())
    }

    async fn snapshots(&self, after: Option<&SnapshotId>) -> Result<Vec<KeptSnapshot>, NodeError> {
        let state = self.reachable()?;
        let kept = state.snapshots.iter();
        let asked = kept.filter(|id| after.is_none_or(|after| *id > after));
        let named = asked.map(|snapshot| KeptSnapshot {
            snapshot: snapshot.clone(),
            bytes: Some(0),
        });
        Ok(named.collect())
    }

    async fn set_deadline(&self, sandbox: &SandboxId, ends_at: Timestamp) -> Result<(), NodeError> {
        let mut state = self.reachable()?;
        if state.entry(sandbox)?.rest.is_some() {
            return Err(NodeError::Paused(sandbox.clone()));
        }
        state.entry(sandbox)?.facts.ends_at = ends_at;
        if ends_at <= Timestamp::now() {
            state.end(sandbox, EndReason::Expired);
        }
        Ok(())
    }

    async fn set_network(
        &self,
        sandbox: &SandboxId,
        policy: CompiledPolicy,
    ) -> Result<(), NodeError> {
        self.reachable()?.entry(sandbox)?.policy = policy;
        Ok(())
    }

    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<std::net::TcpStream, NodeError> {
        self.reachable()?.entry(sandbox)?;
        Err(NodeError::PortClosed {
            sandbox: sandbox.clone(),
            port,
        })
    }

    async fn info(&self) -> Result<NodeInfo, NodeError> {
        Ok(self.reachable()?.info())
    }

    async fn watch(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        let mut state = self.reachable()?;
        let (sender, receiver) = mpsc::channel(EVENTS);
        state.events = Some(sender);
        let first = state.running.values().map(|entry| match entry.paused() {
            None => NodeEvent::Running(entry.facts.clone()),
            Some(paused) => NodeEvent::Paused(paused),
        });
        for event in first.collect::<Vec<_>>() {
            state.tell(event);
        }
        state.tell(NodeEvent::Synced);
        let info = state.info();
        state.tell(NodeEvent::Heartbeat(Box::new(info)));
        Ok(receiver)
    }
}

fn base_template() -> NodeTemplate {
    NodeTemplate {
        template: TemplateId::random(),
        build: casemate_store::BuildId::random().to_string(),
        alias: crate::nodes::BASE_ALIAS.into(),
        layers: vec!["base".into()],
        resources: Resources::BASE,
        default_user: "user".into(),
        default_workdir: Some("/home/user".into()),
        agent_version: "0.6.12".into(),
        created_at: Timestamp::now(),
    }
}
