//! Control's end: a [`NodePort`] over a socket pair.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use casemate_types::{CompiledPolicy, EndReason, Kept, LayerId, SandboxId, SnapshotId, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::frame::{Channel, buffer};
use crate::protocol::{
    self, Call, ClaimRequest, CreateReply, CreateRequest, KeptSnapshot, NodeEvent, NodeInfo,
    PauseReply, Reply, ReplyFrame, RequestFrame, ResumeReply, ResumeRequest, SealReply,
    SnapshotReply,
};
use crate::{NodeError, NodePort};

/// Events that a watcher may lag behind; one that lags more loses its watch and begins anew.
const WATCH_LAG_MAX: usize = 8192;

type Answer = (Result<Reply, NodeError>, Option<OwnedFd>);

/// See the module. Dropping it ends the connection.
pub struct NodeClient {
    shared: Arc<Shared>,
    reader: tokio::task::AbortHandle,
}

struct Shared {
    channel: Channel,
    next_id: AtomicU64,
    state: Mutex<State>,
    gone: CancellationToken,
}

#[derive(Default)]
struct State {
    pending: HashMap<u64, oneshot::Sender<Answer>>,
    watcher: Option<mpsc::Sender<NodeEvent>>,
    closed: bool,
}

impl NodeClient {
    /// Takes the socket and agrees on the version of the protocol.
    pub async fn connect(socket: OwnedFd) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            channel: Channel::new(socket)?,
            next_id: AtomicU64::new(1),
            state: Mutex::default(),
            gone: CancellationToken::new(),
        });
        let reader = tokio::spawn(read_replies(Arc::clone(&shared))).abort_handle();
        let client = Self { shared, reader };
        match client
            .call(Call::Hello {
                version: protocol::VERSION,
            })
            .await
        {
            Ok((Reply::Hello { version }, _)) if version == protocol::VERSION => Ok(client),
            Ok(_) => Err(io::Error::other(
                "the node speaks another version of the protocol",
            )),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Waits until the connection to the node is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn closed(&self) {
        self.shared.gone.cancelled().await;
    }

    /// Asks the node nothing more, and lets it know: its end of the connection is served out once
    /// the calls under way are done.
    pub fn leave(&self) {
        if let Err(error) = self.shared.channel.end_sending() {
            // It went before us.
            debug!(%error, "leave the node");
        }
    }

    async fn call(&self, call: Call) -> Result<(Reply, Option<OwnedFd>), NodeError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if state.closed {
                return Err(NodeError::Unreachable);
            }
            state.pending.insert(id, sender);
        }
        let pending = Pending {
            shared: &self.shared,
            id,
        };
        if let Err(error) = self
            .shared
            .channel
            .send(&RequestFrame { id, call }, None)
            .await
        {
            return Err(match error.kind() {
                io::ErrorKind::InvalidInput => NodeError::Unsupported {
                    why: "the request is larger than 1 MiB".into(),
                },
                _ => NodeError::Unreachable,
            });
        }
        let (result, fd) = receiver.await.map_err(|_| NodeError::Unreachable)?;
        drop(pending);
        Ok((result?, fd))
    }

    async fn done(&self, call: Call) -> Result<(), NodeError> {
        match self.call(call).await? {
            (Reply::Done, _) => Ok(()),
            (other, _) => Err(unexpected(&other)),
        }
    }
}

impl Drop for NodeClient {
    fn drop(&mut self) {
        self.reader.abort();
        self.shared.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.pending.clear();
        state.watcher = None;
        self.gone.cancel();
    }
}

/// Forgets a call whose caller gave up, so that its answer is dropped when it comes.
struct Pending<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.shared.lock().pending.remove(&self.id);
    }
}

async fn read_replies(shared: Arc<Shared>) {
    let mut buffer = buffer();
    loop {
        match shared.channel.recv::<ReplyFrame>(&mut buffer).await {
            Ok(Some((ReplyFrame::Reply { id, result }, fd))) => {
                let waiting = shared.lock().pending.remove(&id);
                if let Some(waiting) = waiting {
                    // A caller that left meanwhile drops the answer, and a descriptor with it.
                    let _ = waiting.send((result, fd));
                }
            }
            Ok(Some((ReplyFrame::Event(event), _))) => {
                let mut state = shared.lock();
                let lost = state
                    .watcher
                    .as_ref()
                    .is_some_and(|w| w.try_send(event).is_err());
                if lost {
                    state.watcher = None;
                }
            }
            Ok(None) => break,
            Err(error) => {
                warn!(%error, "the connection to the node broke");
                break;
            }
        }
    }
    shared.close();
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
        let (sandbox, snapshot) = (sandbox.clone(), snapshot.clone());
        match self.call(Call::Snapshot { sandbox, snapshot }).await? {
            (Reply::Snapshot(reply), _) => Ok(reply),
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
    ) -> Result<Vec<String>, NodeError> {
        let (layers, files) = (layers.to_vec(), files.cloned());
        match self.call(Call::Missing { layers, files }).await? {
            (Reply::Missing(missing), _) => Ok(missing),
            (other, _) => Err(unexpected(&other)),
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

    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<TcpStream, NodeError> {
        match self
            .call(Call::Dial {
                sandbox: sandbox.clone(),
                port,
            })
            .await?
        {
            (Reply::Dialled, Some(fd)) => Ok(TcpStream::from(fd)),
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
        let (sender, receiver) = mpsc::channel(WATCH_LAG_MAX);
        self.shared.lock().watcher = Some(sender);
        self.done(Call::Watch).await?;
        Ok(receiver)
    }
}
