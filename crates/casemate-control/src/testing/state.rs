//! What the fake node knows.

use std::collections::{BTreeMap, BTreeSet};

use casemate_rpc::{
    NodeCache, NodeDisk, NodeError, NodeEvent, NodeInfo, NodeProcessor, NodeTemplate,
    PausedSandbox, RunningSandbox,
};
use casemate_types::{
    CompiledPolicy, Distribution, EndReason, Entrance, Kept, LayerId, PauseReason, Portable,
    Resources, SandboxId, SnapshotId, Startup, TemplateId, Timestamp,
};
use tokio::sync::mpsc;

use super::agent::FakeAgent;

pub(super) struct State {
    pub(super) name: String,
    pub(super) running: BTreeMap<SandboxId, Entry>,
    pub(super) events: Option<mpsc::Sender<NodeEvent>>,
    pub(super) observers: Vec<mpsc::Sender<NodeEvent>>,
    pub(super) template: NodeTemplate,
    pub(super) failure: Option<NodeError>,
    pub(super) reachable: bool,
    pub(super) held: bool,
    pub(super) held_answers: bool,
    pub(super) creates: usize,
    pub(super) sandboxes_max: u32,
    pub(super) kills: usize,
    pub(super) failing_kills: usize,
    pub(super) resisting: BTreeSet<SandboxId>,
    pub(super) ending_slowly: BTreeSet<SandboxId>,
    pub(super) held_pauses: bool,
    pub(super) pauses: usize,
    pub(super) held_resumes: bool,
    pub(super) resumes: usize,
    pub(super) failing_pauses: bool,
    pub(super) snapshots: BTreeSet<SnapshotId>,
    pub(super) memory_kills: BTreeMap<SandboxId, u64>,
    /// Made of snapshots.
    pub(super) layers: BTreeSet<LayerId>,
    /// It was told that the bucket has these.
    pub(super) in_bucket: BTreeSet<Portable>,
    pub(super) evictions: u64,
    /// Who answers in sandboxes.
    pub(super) agent: Option<FakeAgent>,
}

pub(super) struct Entry {
    pub(super) facts: RunningSandbox,
    pub(super) policy: CompiledPolicy,
    pub(super) access_token: Option<String>,
    pub(super) envs: BTreeMap<String, String>,
    pub(super) files: Option<SnapshotId>,
    pub(super) layers: Vec<String>,
    pub(super) startup: Option<Startup>,
    pub(super) entrance: Option<Entrance>,
    pub(super) rest: Option<Rest>,
    /// Of its last pause.
    pub(super) pause_files: Option<SnapshotId>,
}

#[derive(Clone, Copy)]
pub(super) struct Rest {
    pub(super) at: Timestamp,
    pub(super) kept: Kept,
    pub(super) reason: PauseReason,
}

impl Entry {
    pub(super) fn paused(&self) -> Option<PausedSandbox> {
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
            creator: self.facts.creator.clone(),
        })
    }
}

impl State {
    /// Whether this kill is one of those that fail.
    pub(super) fn count_kill(&mut self) -> bool {
        self.kills += 1;
        let fails = self.failing_kills > 0;
        self.failing_kills -= usize::from(fails);
        fails
    }

    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            running: BTreeMap::new(),
            events: None,
            observers: Vec::new(),
            template: base_template(),
            failure: None,
            reachable: true,
            held: false,
            held_answers: false,
            creates: 0,
            sandboxes_max: 1000,
            kills: 0,
            failing_kills: 0,
            resisting: BTreeSet::new(),
            ending_slowly: BTreeSet::new(),
            held_pauses: false,
            pauses: 0,
            held_resumes: false,
            resumes: 0,
            failing_pauses: false,
            snapshots: BTreeSet::new(),
            layers: BTreeSet::new(),
            in_bucket: BTreeSet::new(),
            evictions: 0,
            agent: None,
            memory_kills: BTreeMap::new(),
        }
    }

    pub(super) fn begin(&mut self, entry: Entry) {
        self.tell(NodeEvent::Running(entry.facts.clone()));
        self.running.insert(entry.facts.sandbox.clone(), entry);
    }

    /// Pauses it, or keeps less of it.
    pub(super) fn rest(&mut self, sandbox: &SandboxId, kept: Kept, reason: PauseReason) {
        let Some(entry) = self.running.get_mut(sandbox) else {
            return;
        };
        if entry.rest.is_none() {
            entry.pause_files = Some(SnapshotId::random_of_pause());
        }
        let at = entry.rest.map_or_else(Timestamp::now, |rest| rest.at);
        entry.rest = Some(Rest { at, kept, reason });
        if let Some(paused) = entry.paused() {
            self.tell(NodeEvent::Paused(paused));
        }
    }

    pub(super) fn end(&mut self, sandbox: &SandboxId, reason: EndReason) -> bool {
        let known = self.running.remove(sandbox);
        if let Some(files) = known.as_ref().and_then(|entry| entry.pause_files.as_ref()) {
            self.snapshots.remove(files);
        }
        let known = known.is_some();
        if known {
            self.tell(NodeEvent::Ended {
                sandbox: sandbox.clone(),
                reason,
                at: Timestamp::now(),
            });
        }
        known
    }

    /// What there is, for whoever begins to listen.
    pub(super) fn first_events(&self) -> Vec<NodeEvent> {
        let running = self.running.values().map(|entry| match entry.paused() {
            None => NodeEvent::Running(entry.facts.clone()),
            Some(paused) => NodeEvent::Paused(paused),
        });
        let info = NodeEvent::Heartbeat(Box::new(self.info()));
        running.chain([NodeEvent::Synced, info]).collect()
    }

    pub(super) fn tell(&mut self, event: NodeEvent) {
        self.observers
            .retain(|observer| observer.try_send(event.clone()).is_ok());
        if let Some(events) = &self.events
            && events.try_send(event).is_err()
        {
            self.events = None;
        }
    }

    pub(super) fn info(&self) -> NodeInfo {
        NodeInfo {
            node: self.name.clone(),
            version: "0.1.0".into(),
            ready: true,
            sandboxes: u32::try_from(self.running.len()).unwrap_or(u32::MAX),
            cache: Some(NodeCache {
                evictions: self.evictions,
                ..NodeCache::default()
            }),
            sandboxes_paused: 0,
            sandboxes_warm: 0,
            sandboxes_max: self.sandboxes_max,
            queue_length: 0,
            slots_ready: 8,
            layers_ready: 8,
            cpu_count: 2,
            memory_total_bytes: 8 << 30,
            memory_available_bytes: 4 << 30,
            disk_free_bytes: 16 << 30,
            disk_reserve_bytes: 1 << 29,
            layers_left_bytes: 8 << 30,
            layers_full_ms_ago: None,
            memory_promised_bytes: 0,
            memory_promised_max_bytes: 0,
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

    pub(super) fn entry(&mut self, sandbox: &SandboxId) -> Result<&mut Entry, NodeError> {
        let missing = || NodeError::NotFound(sandbox.clone());
        self.running.get_mut(sandbox).ok_or_else(missing)
    }
}

fn base_template() -> NodeTemplate {
    NodeTemplate {
        template: TemplateId::random(),
        build: casemate_store::BuildId::random().to_string(),
        alias: crate::nodes::BASE_ALIAS.into(),
        layers: vec!["base".into()],
        distribution: Distribution::Debian("bookworm".into()),
        resources: Resources::BASE,
        default_user: "user".into(),
        default_workdir: Some("/home/user".into()),
        agent_version: "0.6.12".into(),
        created_at: Timestamp::now(),
    }
}
