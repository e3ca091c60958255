//! The port of the fake node.

use std::time::Duration;

use async_trait::async_trait;
use casemate_rpc::{
    ClaimRequest, CreateReply, CreateRequest, Dialled, KeptSnapshot, Located, NodeError, NodeEvent,
    NodeInfo, NodePort, PauseReply, PolicyDigest, ResumeReply, ResumeRequest, RunningSandbox,
    SNAPSHOTS_PAGE, SealReply, SnapshotReply,
};
use casemate_types::{
    CompiledPolicy, EndReason, Kept, LayerId, PauseReason, Portable, SandboxId, SnapshotId,
    Timestamp,
};
use tokio::sync::mpsc;

use super::FakeNode;
use super::state::Entry;

const EVENTS: usize = 4096;
/// What the removal of any kept files of it gives back.
const KEPT_BYTES: u64 = 1000;
/// What every sealed layer of it takes.
const LAYER_BYTES: u64 = 4096;

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
            let (started_at, ends_at) = {
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
                // Of others it knows nothing.
                let sealed = request.layers.iter().flat_map(|name| LayerId::parse(name));
                if let Some(missing) = sealed.into_iter().find(|one| !state.layers.contains(one)) {
                    let why = format!("layer {missing} is not here");
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
                    warm: request.warm,
                    creator: request.creator,
                    network: Some(PolicyDigest::of(&request.network)),
                };
                state.begin(Entry {
                    facts,
                    policy: request.network,
                    access_token: request.access_token,
                    envs: request.envs,
                    files: request.files,
                    layers: request.layers,
                    startup: request.startup,
                    entrance: request.entrance,
                    rest: None,
                    pause_files: None,
                });
                if !state.reachable {
                    return Err(NodeError::Unreachable);
                }
                (started_at, ends_at)
            };
            loop {
                let released = node.released.notified();
                if !node.lock().held_answers {
                    break;
                }
                released.await;
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

    async fn claim(
        &self,
        sandbox: &SandboxId,
        claim: ClaimRequest,
    ) -> Result<CreateReply, NodeError> {
        let mut state = self.reachable()?;
        let entry = state.entry(sandbox)?;
        let facts = &mut entry.facts;
        if !facts.warm {
            return Err(NodeError::Exists(sandbox.clone()));
        }
        facts.warm = false;
        facts.started_at = Timestamp::now();
        facts.ends_at = facts.started_at + Duration::from_millis(claim.life_ms);
        facts.on_timeout = claim.on_timeout;
        entry.entrance = claim.entrance;
        let facts = facts.clone();
        state.tell(NodeEvent::Running(facts.clone()));
        Ok(CreateReply {
            started_at: facts.started_at,
            ends_at: facts.ends_at,
        })
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
        let fails = self.lock().count_kill();
        if fails {
            let why = "told to fail".into();
            return Err(NodeError::Internal { why });
        }
        if self.lock().resisting.contains(sandbox) {
            std::future::pending::<()>().await;
        }
        if self.lock().ending_slowly.remove(sandbox) {
            return Err(NodeError::StillEnding(sandbox.clone()));
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
        self.reachable()?.pauses += 1;
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
        self.reachable()?.resumes += 1;
        loop {
            let released = self.released.notified();
            if !self.reachable()?.held_resumes {
                break;
            }
            released.await;
        }
        let mut state = self.reachable()?;
        if let Some(failure) = state.failure.clone() {
            return Err(failure);
        }
        let id = request.sandbox.sandbox.clone();
        let kept = state.entry(&id)?.rest.map(|rest| rest.kept);
        if request.with_memory_only && kept == Some(Kept::Files) {
            return Err(NodeError::FilesOnly(id));
        }
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
            entry.layers = request.sandbox.layers;
            entry.startup = request.sandbox.startup;
            entry.access_token = request.sandbox.access_token;
            entry.facts.recorded = false;
        }
        entry.facts.on_timeout = request.sandbox.on_timeout;
        entry.facts.started_at = Timestamp::now();
        entry.facts.ends_at =
            entry.facts.started_at + Duration::from_millis(request.sandbox.life_ms);
        let facts = entry.facts.clone();
        if let Some(files) = entry.pause_files.take() {
            state.snapshots.remove(&files);
        }
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
        Ok(SnapshotReply {
            frozen_us: 100,
            bytes: 0,
            is_shared: true,
        })
    }

    async fn keep_paused(
        &self,
        sandbox: &SandboxId,
        files: &SnapshotId,
    ) -> Result<SnapshotId, NodeError> {
        let mut state = self.reachable()?;
        let entry = state.entry(sandbox)?;
        let files = match (entry.rest, &entry.pause_files) {
            (Some(rest), Some(own)) if rest.kept == Kept::Files => own.clone(),
            (Some(_), _) => files.clone(),
            (None, _) => return Err(NodeError::Exists(sandbox.clone())),
        };
        state.snapshots.insert(files.clone());
        Ok(files)
    }

    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<(), NodeError> {
        self.reachable()?.snapshots.remove(snapshot);
        Ok(())
    }

    async fn snapshots(&self, after: Option<&SnapshotId>) -> Result<Vec<KeptSnapshot>, NodeError> {
        let state = self.reachable()?;
        let kept = state.snapshots.iter();
        let asked = kept.filter(|id| !id.is_of_pause() && after.is_none_or(|after| *id > after));
        let named = asked.map(|snapshot| KeptSnapshot {
            snapshot: snapshot.clone(),
            bytes: Some(KEPT_BYTES),
        });
        Ok(named.collect())
    }

    async fn seal(&self, snapshot: &SnapshotId, layer: &LayerId) -> Result<SealReply, NodeError> {
        let mut state = self.reachable()?;
        if !state.layers.contains(layer) && !state.snapshots.contains(snapshot) {
            return Err(NodeError::NoSnapshot(snapshot.clone()));
        }
        state.layers.insert(layer.clone());
        let bytes = LAYER_BYTES;
        Ok(SealReply { bytes })
    }

    async fn remove_layer(&self, layer: &LayerId) -> Result<(), NodeError> {
        let mut state = self.reachable()?;
        let is_below = |entry: &Entry| entry.layers.iter().any(|name| name == layer.as_str());
        if state.running.values().any(is_below) {
            return Err(NodeError::InUse(layer.clone()));
        }
        state.layers.remove(layer);
        Ok(())
    }

    async fn layers(&self, after: Option<&LayerId>) -> Result<Vec<LayerId>, NodeError> {
        let state = self.reachable()?;
        let sealed = state.layers.iter();
        let asked = sealed.filter(|layer| after.is_none_or(|after| *layer > after));
        Ok(asked.take(SNAPSHOTS_PAGE).cloned().collect())
    }

    async fn missing(
        &self,
        layers: &[String],
        files: Option<&SnapshotId>,
        _hold: Option<&str>,
    ) -> Result<Vec<String>, NodeError> {
        let state = self.reachable()?;
        let is_gone =
            |name: &&String| LayerId::parse(name).is_ok_and(|layer| !state.layers.contains(&layer));
        let mut missing: Vec<String> = layers.iter().filter(is_gone).cloned().collect();
        let gone = files.filter(|files| !state.snapshots.contains(*files));
        missing.extend(gone.map(SnapshotId::to_string));
        Ok(missing)
    }

    async fn stored(&self, whats: &[Portable]) -> Result<(), NodeError> {
        self.reachable()?.in_bucket.extend(whats.iter().cloned());
        Ok(())
    }

    async fn memory_kills(&self, sandbox: &SandboxId) -> Result<u64, NodeError> {
        let mut state = self.reachable()?;
        state.entry(sandbox)?;
        Ok(state.memory_kills.get(sandbox).copied().unwrap_or_default())
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
        let mut state = self.reachable()?;
        let entry = state.entry(sandbox)?;
        entry.facts.network = Some(PolicyDigest::of(&policy));
        entry.policy = policy;
        Ok(())
    }

    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<Dialled, NodeError> {
        let agent = {
            let mut state = self.reachable()?;
            state.entry(sandbox)?;
            state.agent.as_ref().map(|agent| agent.address)
        };
        let closed = || NodeError::PortClosed {
            sandbox: sandbox.clone(),
            port,
        };
        let socket = std::net::TcpStream::connect(agent.ok_or_else(closed)?);
        socket.map(Dialled::Near).map_err(|_| closed())
    }

    async fn locate(&self, sandbox: &SandboxId) -> Result<Option<Located>, NodeError> {
        let state = self.reachable()?;
        let entry = state.running.get(sandbox);
        let entry = entry.filter(|entry| !entry.facts.warm);
        Ok(entry.map(|entry| Located {
            asleep: entry.rest.is_some(),
            started_at: entry.facts.started_at,
            entrance: entry.entrance.clone(),
        }))
    }

    async fn info(&self) -> Result<NodeInfo, NodeError> {
        Ok(self.reachable()?.info())
    }

    async fn watch(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        let mut state = self.reachable()?;
        let (sender, receiver) = mpsc::channel(EVENTS);
        for event in state.first_events() {
            // The channel is new, and larger than what a test makes.
            let _ = sender.try_send(event);
        }
        state.events = Some(sender);
        Ok(receiver)
    }

    async fn observe(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        let mut state = self.reachable()?;
        let (sender, receiver) = mpsc::channel(EVENTS);
        for event in state.first_events() {
            let _ = sender.try_send(event);
        }
        state.observers.push(sender);
        Ok(receiver)
    }
}
