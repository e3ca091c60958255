//! The asking end of a node's wire: a [`NodePort`] over a socket pair, or over a stream.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use async_trait::async_trait;
use casemate_types::{
    CompiledPolicy, EndReason, Kept, LayerId, Portable, SandboxId, SnapshotId, Timestamp,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::caller::{Caller, NoAnswer};
use crate::frame::Channel;
use crate::port::cannot_carry;
use crate::protocol::{
    Call, ClaimRequest, CreateReply, CreateRequest, KeptSnapshot, Located, NodeEvent, NodeInfo,
    PauseReply, Peer, Reply, ResumeReply, ResumeRequest, SealReply, SnapshotReply, Speaks,
};
use crate::wire::{Dialled, Wire};
use crate::{NodeError, NodePort};

/// How often a node on another machine is asked whether it lives.
const ASKED_EVERY: Duration = Duration::from_secs(5);
/// A node that does not answer for so long is taken for broken.
const SILENT_MAX: Duration = Duration::from_secs(15);

/// See the module. Dropping it ends the connection.
pub struct NodeClient {
    caller: Caller<Reply, NodeError, NodeEvent>,
}

impl NodeClient {
    /// Takes a socket of a pair and agrees on the version of the protocol.
    pub async fn connect(socket: OwnedFd) -> io::Result<Self> {
        Self::over(Channel::pair(socket)?).await
    }

    /// The same over a connection to another machine. It does not dial: a connection into a sandbox
    /// needs one of its own ([`crate::dial`]).
    pub async fn connect_stream(stream: Box<dyn Wire>) -> io::Result<Self> {
        Self::over(Channel::stream(stream)).await
    }

    async fn over(channel: Channel) -> io::Result<Self> {
        let client = Self {
            caller: Caller::new(channel),
        };
        match client.call(Call::Hello(Speaks::OURS)).await {
            Ok((Reply::Hello(theirs), _)) if theirs.understands_us() => Ok(client),
            Ok((Reply::Hello(theirs), _)) => Err(io::Error::other(format!(
                "the node speaks {theirs}, and we {}",
                Speaks::OURS
            ))),
            Ok(_) => Err(io::Error::other("the node answers something else")),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// One more connection to the node, served as for `peer`.
    pub(crate) async fn connection_for(&self, peer: Peer) -> Result<OwnedFd, NodeError> {
        match self.call(Call::Connect { peer }).await? {
            (Reply::Connected, Some(socket)) => Ok(socket),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Waits until the connection to the node is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn closed(&self) {
        self.caller.closed().await;
    }

    /// Whether it is gone.
    pub fn is_closed(&self) -> bool {
        self.caller.is_closed()
    }

    /// Returns once the node has not answered a question for [`SILENT_MAX`]. Signs of life on a
    /// connection between machines are its gate's; a node that hangs (a stopped process, a disk that
    /// never answers) shows by this alone.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn silent(&self) {
        loop {
            tokio::time::sleep(ASKED_EVERY).await;
            let answer = self.caller.call(Call::Hello(Speaks::OURS));
            tokio::pin!(answer);
            let answered = timeout(SILENT_MAX, &mut answer).await.is_ok()
                // Where it was us who stood still, the answer is there, and to be read.
                || timeout(ASKED_EVERY, &mut answer).await.is_ok();
            if !answered {
                return;
            }
        }
    }

    /// Ends the connection: whoever waits for an answer hears [`NodeError::Unreachable`].
    pub(crate) fn break_off(&self) {
        self.caller.break_off();
    }

    /// Asks the node nothing more, and lets it know: its end of the connection is served out once
    /// the calls under way are done.
    pub async fn leave(&self) {
        self.caller.leave().await;
    }

    async fn call(&self, call: Call) -> Result<(Reply, Option<OwnedFd>), NodeError> {
        match self.caller.call(call).await {
            Ok((result, fd)) => Ok((result?, fd)),
            Err(NoAnswer::Gone) => Err(NodeError::Unreachable),
            Err(NoAnswer::TooLong) => Err(NodeError::Unsupported {
                why: "the request is larger than 1 MiB".into(),
            }),
        }
    }

    /// A call that hands a socket over.
    async fn carry(
        &self,
        call: Call,
        what: &Portable,
        socket: UnixStream,
    ) -> Result<Reply, NodeError> {
        match self.caller.call_with(call, Some(socket.as_fd())).await {
            Ok((result, _)) => result,
            Err(NoAnswer::Gone) => Err(NodeError::Unreachable),
            Err(NoAnswer::TooLong) => Err(cannot_carry(what)),
        }
    }

    async fn done(&self, call: Call) -> Result<(), NodeError> {
        match self.call(call).await? {
            (Reply::Done, _) => Ok(()),
            (other, _) => Err(unexpected(&other)),
        }
    }
}

fn unexpected(reply: &Reply) -> NodeError {
    NodeError::Internal {
        why: format!("unexpected reply {reply:?}"),
    }
}

#[async_trait]
impl NodePort for NodeClient {
    async fn create(&self, request: CreateRequest) -> Result<CreateReply, NodeError> {
        match self.call(Call::Create(Box::new(request))).await? {
            (Reply::Created(reply), _) => Ok(reply),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn claim(
        &self,
        sandbox: &SandboxId,
        claim: ClaimRequest,
    ) -> Result<CreateReply, NodeError> {
        let sandbox = sandbox.clone();
        match self.call(Call::Claim { sandbox, claim }).await? {
            (Reply::Created(reply), _) => Ok(reply),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn recorded(&self, sandboxes: &[SandboxId]) -> Result<(), NodeError> {
        let sandboxes = sandboxes.to_vec();
        self.done(Call::Recorded { sandboxes }).await
    }

    async fn kill(&self, sandbox: &SandboxId, reason: EndReason) -> Result<(), NodeError> {
        self.done(Call::Kill {
            sandbox: sandbox.clone(),
            reason,
        })
        .await
    }

    async fn pause(&self, sandbox: &SandboxId, kept: Kept) -> Result<PauseReply, NodeError> {
        let sandbox = sandbox.clone();
        match self.call(Call::Pause { sandbox, kept }).await? {
            (Reply::Paused(reply), _) => Ok(reply),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn resume(&self, request: ResumeRequest) -> Result<ResumeReply, NodeError> {
        match self.call(Call::Resume(Box::new(request))).await? {
            (Reply::Resumed(reply), _) => Ok(reply),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn snapshot(
        &self,
        sandbox: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<SnapshotReply, NodeError> {
        let call = Call::Snapshot {
            sandbox: sandbox.clone(),
            snapshot: snapshot.clone(),
            paused: false,
        };
        match self.call(call).await? {
            (Reply::Snapshot(reply), _) => Ok(reply),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn keep_paused(
        &self,
        sandbox: &SandboxId,
        files: &SnapshotId,
    ) -> Result<SnapshotId, NodeError> {
        let call = Call::Snapshot {
            sandbox: sandbox.clone(),
            snapshot: files.clone(),
            paused: true,
        };
        match self.call(call).await? {
            (Reply::Kept(files), _) => Ok(files),
            // Of an older version, and it runs.
            (Reply::Snapshot(_), _) => Err(NodeError::Exists(sandbox.clone())),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<(), NodeError> {
        let snapshot = snapshot.clone();
        self.done(Call::RemoveSnapshot { snapshot }).await
    }

    async fn snapshots(&self, after: Option<&SnapshotId>) -> Result<Vec<KeptSnapshot>, NodeError> {
        let after = after.cloned();
        match self.call(Call::Snapshots { after }).await? {
            (Reply::Snapshots(kept), _) => Ok(kept),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn seal(&self, snapshot: &SnapshotId, layer: &LayerId) -> Result<SealReply, NodeError> {
        let (snapshot, layer) = (snapshot.clone(), layer.clone());
        match self.call(Call::Seal { snapshot, layer }).await? {
            (Reply::Sealed(reply), _) => Ok(reply),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn remove_layer(&self, layer: &LayerId) -> Result<(), NodeError> {
        let layer = layer.clone();
        self.done(Call::RemoveLayer { layer }).await
    }

    async fn layers(&self, after: Option<&LayerId>) -> Result<Vec<LayerId>, NodeError> {
        let after = after.cloned();
        match self.call(Call::Layers { after }).await? {
            (Reply::Layers(layers), _) => Ok(layers),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn missing(
        &self,
        layers: &[String],
        files: Option<&SnapshotId>,
        hold: Option<&str>,
    ) -> Result<Vec<String>, NodeError> {
        let call = Call::Missing {
            layers: layers.to_vec(),
            files: files.cloned(),
            hold: hold.map(str::to_owned),
        };
        match self.call(call).await? {
            (Reply::Missing(missing), _) => Ok(missing),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn stored(&self, whats: &[Portable]) -> Result<(), NodeError> {
        let whats = whats.to_vec();
        self.done(Call::Stored { whats }).await
    }

    async fn pack(&self, what: &Portable, to: UnixStream) -> Result<(), NodeError> {
        match self
            .carry(Call::Pack { what: what.clone() }, what, to)
            .await?
        {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn unpack(
        &self,
        what: &Portable,
        bytes: u64,
        from: UnixStream,
    ) -> Result<u64, NodeError> {
        let call = Call::Unpack {
            what: what.clone(),
            bytes,
        };
        match self.carry(call, what, from).await? {
            Reply::Unpacked(bytes) => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }

    async fn memory_kills(&self, sandbox: &SandboxId) -> Result<u64, NodeError> {
        let sandbox = sandbox.clone();
        match self.call(Call::MemoryKills { sandbox }).await? {
            (Reply::MemoryKills(processes), _) => Ok(processes),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn set_deadline(&self, sandbox: &SandboxId, ends_at: Timestamp) -> Result<(), NodeError> {
        self.done(Call::SetDeadline {
            sandbox: sandbox.clone(),
            ends_at,
        })
        .await
    }

    async fn set_network(
        &self,
        sandbox: &SandboxId,
        policy: CompiledPolicy,
    ) -> Result<(), NodeError> {
        self.done(Call::SetNetwork {
            sandbox: sandbox.clone(),
            policy,
        })
        .await
    }

    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<Dialled, NodeError> {
        match self
            .call(Call::Dial {
                sandbox: sandbox.clone(),
                port,
            })
            .await?
        {
            (Reply::Dialled, Some(fd)) => Ok(Dialled::Near(fd.into())),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn locate(&self, sandbox: &SandboxId) -> Result<Option<Located>, NodeError> {
        let sandbox = sandbox.clone();
        match self.call(Call::Locate { sandbox }).await? {
            (Reply::Located(located), _) => Ok(located.map(|located| *located)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn info(&self) -> Result<NodeInfo, NodeError> {
        match self.call(Call::Info).await? {
            (Reply::Info(info), _) => Ok(*info),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn watch(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        let events = self.caller.watch();
        self.done(Call::Watch).await?;
        Ok(events)
    }

    async fn observe(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        let events = self.caller.watch();
        self.done(Call::Observe).await?;
        Ok(events)
    }
}
