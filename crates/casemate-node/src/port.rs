//! The calls of [`NodePort`]: each is an order to one sandbox's task, or a look at the table.

use std::os::unix::net::UnixStream;

use async_trait::async_trait;
use casemate_rpc::{
    ClaimRequest, CreateReply, CreateRequest, Dialled, KeptSnapshot, Located, NodeError, NodeEvent,
    NodeInfo, NodePort, PauseReply, ResumeReply, ResumeRequest, SNAPSHOTS_PAGE, SealReply,
    SnapshotReply,
};
use casemate_runtime::DialError;
use casemate_types::{
    CompiledPolicy, EndReason, Kept, LayerId, Portable, SandboxId, SnapshotId, Timestamp,
};
use tokio::sync::mpsc;

use crate::node::{Node, internal, snapshot_error};
use crate::sandbox::Command;

#[async_trait]
impl NodePort for Node {
    async fn create(&self, request: CreateRequest) -> Result<CreateReply, NodeError> {
        self.inner.create(request).await
    }

    async fn claim(
        &self,
        sandbox: &SandboxId,
        claim: ClaimRequest,
    ) -> Result<CreateReply, NodeError> {
        self.inner
            .command(sandbox, |done| Command::Claim { claim, done })
            .await
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

    async fn keep_paused(
        &self,
        sandbox: &SandboxId,
        files: &SnapshotId,
    ) -> Result<SnapshotId, NodeError> {
        let files = files.clone();
        self.inner
            .command(sandbox, |done| Command::KeepPaused { files, done })
            .await
    }

    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<(), NodeError> {
        self.inner.remove_snapshot(snapshot).await
    }

    async fn snapshots(&self, after: Option<&SnapshotId>) -> Result<Vec<KeptSnapshot>, NodeError> {
        let kept = self.inner.snapshots.list().await.map_err(snapshot_error)?;
        let asked = kept
            .into_iter()
            .filter(|(id, _)| !id.is_of_pause() && after.is_none_or(|after| id > after))
            .map(|(snapshot, bytes)| KeptSnapshot { snapshot, bytes });
        Ok(asked.take(SNAPSHOTS_PAGE).collect())
    }

    async fn seal(&self, snapshot: &SnapshotId, layer: &LayerId) -> Result<SealReply, NodeError> {
        self.inner.seal(snapshot, layer).await
    }

    async fn remove_layer(&self, layer: &LayerId) -> Result<(), NodeError> {
        self.inner.remove_layer(layer).await
    }

    async fn layers(&self, after: Option<&LayerId>) -> Result<Vec<LayerId>, NodeError> {
        self.inner.layers(after).await
    }

    async fn missing(
        &self,
        layers: &[String],
        files: Option<&SnapshotId>,
        hold: Option<&str>,
    ) -> Result<Vec<String>, NodeError> {
        self.inner.missing(layers, files, hold).await
    }

    async fn stored(&self, whats: &[Portable]) -> Result<(), NodeError> {
        self.inner.stored(whats);
        Ok(())
    }

    async fn pack(&self, what: &Portable, to: UnixStream) -> Result<(), NodeError> {
        self.inner.pack(what, to).await
    }

    async fn unpack(
        &self,
        what: &Portable,
        bytes: u64,
        from: UnixStream,
    ) -> Result<u64, NodeError> {
        self.inner.unpack(what, bytes, from).await
    }

    async fn memory_kills(&self, sandbox: &SandboxId) -> Result<u64, NodeError> {
        self.inner.commands(sandbox)?;
        let counted = self.inner.runtime.memory_kills(sandbox);
        Ok(counted.unwrap_or_default())
    }

    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<Dialled, NodeError> {
        self.inner.commands(sandbox)?;
        if self.inner.rests_with(sandbox).is_some() {
            return Err(NodeError::Paused(sandbox.clone()));
        }
        let dialled = self.inner.runtime.dial(sandbox, port).await;
        dialled.map(Dialled::Near).map_err(|error| match error {
            // It ended under the dial: of its ports nothing can be said.
            _ if self.inner.commands(sandbox).is_err() => NodeError::NotFound(sandbox.clone()),
            DialError::NotFound(sandbox) => NodeError::NotFound(sandbox),
            DialError::PortClosed { sandbox, port } => NodeError::PortClosed { sandbox, port },
            DialError::Io { .. } => internal(&error),
        })
    }

    async fn locate(&self, sandbox: &SandboxId) -> Result<Option<Located>, NodeError> {
        Ok(self.inner.located(sandbox))
    }

    async fn info(&self) -> Result<NodeInfo, NodeError> {
        Ok(self.inner.info())
    }

    async fn watch(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        Ok(self.inner.events.watch(|| self.inner.first_events()))
    }

    async fn observe(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        Ok(self.inner.events.observe(|| self.inner.first_events()))
    }
}
