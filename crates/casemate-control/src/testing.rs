//! A node without sandboxes, for tests of what stands above the port.
//!
//! It keeps the contract of [`casemate_rpc::NodePort`] (order of calls, ends by time, one watcher) and lets a
//! test break it on purpose.

mod agent;
mod bucket;
mod port;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use casemate_rpc::{NodeError, NodeEvent, RunningSandbox};
use casemate_types::{
    CompiledPolicy, EndReason, Kept, LayerId, OnTimeout, PauseReason, Portable, Sample, SandboxId,
    SnapshotId, Startup, TeamId, TemplateId, Timestamp, Usage,
};
use tokio::sync::Notify;

use agent::FakeAgent;
pub use bucket::FakeBucket;
use state::{Entry, State};

/// How often the fake looks for deadlines.
const CLOCK: Duration = Duration::from_millis(20);

/// See the module. Clones are the same node.
#[derive(Clone)]
pub struct FakeNode {
    state: Arc<Mutex<State>>,
    released: Arc<Notify>,
}

impl Default for FakeNode {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeNode {
    /// A ready node with the base template.
    pub fn new() -> Self {
        Self::named("fake")
    }

    /// One of several.
    pub fn named(name: &str) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new(name))),
            released: Arc::new(Notify::new()),
        }
    }

    /// One more, with the same base template.
    pub fn beside(&self, name: &str) -> Self {
        let other = Self::named(name);
        other.lock().template = self.lock().template.clone();
        other
    }

    /// As many sandboxes as it may have.
    pub fn bound_sandboxes(&self, max: u32) {
        self.lock().sandboxes_max = max;
        let info = self.lock().info();
        self.lock().tell(NodeEvent::Heartbeat(Box::new(info)));
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

    /// What it may evict, as it was told.
    pub fn in_bucket(&self) -> BTreeSet<Portable> {
        self.lock().in_bucket.clone()
    }

    /// All of that goes. Who hears of it hears it as of a node.
    pub fn evict(&self) {
        let mut state = self.lock();
        for what in std::mem::take(&mut state.in_bucket) {
            state.evictions += 1;
            match what {
                Portable::Snapshot(files) => state.snapshots.remove(&files),
                Portable::Layer(layer) => state.layers.remove(&layer),
            };
        }
        let info = state.info();
        state.tell(NodeEvent::Heartbeat(Box::new(info)));
    }

    /// The layers that were made of snapshots.
    pub fn sealed(&self) -> BTreeSet<LayerId> {
        self.lock().layers.clone()
    }

    /// Names of the layers that a sandbox was made over last.
    pub fn layers_of(&self, sandbox: &SandboxId) -> Vec<String> {
        let state = self.lock();
        let entry = state.running.get(sandbox);
        entry.map_or_else(Vec::new, |entry| entry.layers.clone())
    }

    /// What a sandbox was told to run when it was made last.
    pub fn startup_of(&self, sandbox: &SandboxId) -> Option<Startup> {
        self.lock().running.get(sandbox)?.startup.clone()
    }

    /// From now on an agent answers in all sandboxes, to whom every start command is ready at once.
    pub fn serve_agents(&self) {
        self.lock().agent.get_or_insert_with(FakeAgent::start);
    }

    /// Every start command fails of this from now on; `None`: none does.
    pub fn fail_starts(&self, failure: Option<&str>) {
        if let Some(agent) = &self.lock().agent {
            agent.fail_starts(failure);
        }
    }

    /// From now on the agents answer nothing.
    pub fn lose_agents(&self) {
        if let Some(agent) = &self.lock().agent {
            agent.go();
        }
    }

    /// Agents hang up on whoever wants to set variables.
    pub fn refuse_inits(&self) {
        if let Some(agent) = &self.lock().agent {
            agent.refuse_inits();
        }
    }

    /// What agents were told of since they answer, whichever sandbox it was in.
    pub fn inits(&self) -> Vec<serde_json::Value> {
        let state = self.lock();
        state.agent.as_ref().map_or_else(Vec::new, FakeAgent::inits)
    }

    /// Those that wait for being claimed.
    pub fn warm(&self) -> Vec<SandboxId> {
        let state = self.lock();
        let warm = state.running.iter().filter(|(_, entry)| entry.facts.warm);
        warm.map(|(id, _)| id.clone()).collect()
    }

    /// One that an earlier process of control had made runs, and waits for being claimed.
    pub fn run_forgotten_warm(&self, sandbox: &SandboxId, team: &TeamId) {
        self.run_warm_of(sandbox, team, "");
    }

    /// One that this server of control made runs, and waits for being claimed.
    pub fn run_warm_of(&self, sandbox: &SandboxId, team: &TeamId, creator: &str) {
        self.run_unrecorded(sandbox, team, creator);
        let mut state = self.lock();
        if let Some(entry) = state.running.get_mut(sandbox) {
            entry.facts.warm = true;
            let facts = entry.facts.clone();
            state.tell(NodeEvent::Running(facts));
        }
    }

    /// So many of the next kills fail.
    pub fn fail_kills(&self, times: usize) {
        self.lock().failing_kills = times;
    }

    /// Pauses wait until [`FakeNode::release_pauses`].
    pub fn hold_pauses(&self) {
        self.lock().held_pauses = true;
    }

    pub fn release_pauses(&self) {
        self.lock().held_pauses = false;
        self.released.notify_waiters();
    }

    /// Pauses that were asked for, whatever became of them.
    pub fn pauses(&self) -> usize {
        self.lock().pauses
    }

    /// Resumes wait until [`FakeNode::release_resumes`].
    pub fn hold_resumes(&self) {
        self.lock().held_resumes = true;
    }

    pub fn release_resumes(&self) {
        self.lock().held_resumes = false;
        self.released.notify_waiters();
    }

    /// Resumes that were asked for, whatever became of them.
    pub fn resumes(&self) -> usize {
        self.lock().resumes
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

    /// A paused one loses its processes, and nobody has heard of it yet.
    pub fn lose_processes_unheard(&self, sandbox: &SandboxId) {
        let mut state = self.lock();
        let rest = state.running.get_mut(sandbox).map(|entry| &mut entry.rest);
        if let Some(Some(rest)) = rest {
            rest.kept = Kept::Files;
        }
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

    /// What is made from now on runs, and nobody is told until [`Self::release_creates`].
    pub fn hold_answers(&self) {
        self.lock().held_answers = true;
    }

    /// The next kill of it is not over while the node waits for it.
    pub fn end_slowly(&self, sandbox: &SandboxId) {
        self.lock().ending_slowly.insert(sandbox.clone());
    }

    pub fn release_creates(&self) {
        let mut state = self.lock();
        (state.held, state.held_answers) = (false, false);
        drop(state);
        self.released.notify_waiters();
    }

    /// The connection breaks; sandboxes run on.
    pub fn disconnect(&self) {
        let mut state = self.lock();
        state.reachable = false;
        state.events = None;
        state.observers.clear();
    }

    /// It answers nothing more, and nobody has noticed yet.
    pub fn fall_silent(&self) {
        self.lock().reachable = false;
    }

    pub fn reconnect(&self) {
        self.lock().reachable = true;
    }

    /// The sandbox ends by itself; nobody is told when the connection is broken.
    pub fn exit(&self, sandbox: &SandboxId) {
        self.lock().end(sandbox, EndReason::Exited);
    }

    /// Tells an end, whatever runs here: of a copy that was here before.
    pub fn tell_end(&self, sandbox: &SandboxId, at: Timestamp) {
        self.lock().tell(NodeEvent::Ended {
            sandbox: sandbox.clone(),
            reason: EndReason::Killed,
            at,
        });
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
        *state.memory_kills.entry(sandbox.clone()).or_default() += 1;
        state.tell(event);
    }

    /// The sandbox vanishes without a word.
    pub fn lose(&self, sandbox: &SandboxId) {
        self.lock().running.remove(sandbox);
    }

    /// Something runs that this server of control asked for, and is still making.
    pub fn run_unrecorded(&self, sandbox: &SandboxId, team: &TeamId, creator: &str) {
        self.run_of(sandbox, team, false, creator);
    }

    /// Something runs that control knows nothing of; the node may have been told that it has a row.
    pub fn run_stranger(&self, sandbox: &SandboxId, team: &TeamId, recorded: bool) {
        self.run_of(sandbox, team, recorded, "");
    }

    fn run_of(&self, sandbox: &SandboxId, team: &TeamId, recorded: bool, creator: &str) {
        let now = Timestamp::now();
        let facts = RunningSandbox {
            sandbox: sandbox.clone(),
            team: team.clone(),
            template: self.lock().template.template.clone(),
            started_at: now,
            ends_at: now + Duration::from_secs(3600),
            on_timeout: OnTimeout::Kill,
            recorded,
            warm: false,
            creator: creator.to_owned(),
            network: None,
        };
        self.lock().begin(Entry {
            facts,
            policy: CompiledPolicy::open(),
            access_token: None,
            envs: BTreeMap::new(),
            files: None,
            layers: Vec::new(),
            startup: None,
            entrance: None,
            rest: None,
            pause_files: None,
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

    pub fn name(&self) -> String {
        self.lock().name.clone()
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
