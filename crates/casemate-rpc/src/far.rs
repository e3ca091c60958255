//! A node on another machine as a [`NodePort`]: connected again whenever the connection is lost.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use casemate_types::pauses::drawn;
use casemate_types::{
    CompiledPolicy, EndReason, Kept, LayerId, Portable, SandboxId, SnapshotId, Timestamp,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::client::NodeClient;
use crate::dial::{self, Wanted};
use crate::protocol::{
    ClaimRequest, CreateReply, CreateRequest, KeptSnapshot, Located, NodeEvent, NodeInfo,
    PauseReply, ResumeReply, ResumeRequest, SealReply, SnapshotReply,
};
use crate::wire::{Dialled, Wire};
use crate::{NodeError, NodePort};

/// What a connection to a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// [`crate::gate::Gate::serve_calls`].
    Calls,
    /// [`crate::gate::Gate::serve_dials`].
    Dial,
    /// [`crate::carrier::serve`].
    Carry,
}

/// Makes connections to one node whose other end is known to be that node.
#[async_trait]
pub trait Connect: Send + Sync + 'static {
    /// # Cancel safety
    /// Dropping the future drops the connection.
    async fn connect(&self, purpose: Purpose) -> io::Result<Box<dyn Wire>>;
}

/// Waits between attempts, doubled from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// The longest while it is away for no longer than a restart takes: nobody makes sandboxes there until
/// it is found.
const RETRY_LAST_AT_FIRST: Duration = Duration::from_millis(400);
const RESTART_MAX: Duration = Duration::from_secs(30);
/// One attempt, the agreement on the protocol's version included.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Connections that are ready for a dial: a handshake costs a round trip and a millisecond of both
/// processors, and a create is nearly always followed by a dial.
const SPARES: usize = 4;
/// Handshakes for dials at once. A gate bears some hundred of one address, and ends the oldest for one
/// more: those beyond it would fail.
const DIALS_AT_ONCE: usize = 100;
/// One that waits for longer is not used any more: the node closes it soon.
const SPARE_AGE_MAX: Duration = dial::IDLE_MAX.saturating_sub(Duration::from_secs(15));

/// See the module. Dropping it ends the connections for calls; those into sandboxes are whose they
/// were given to.
pub struct FarNode {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

struct Shared {
    name: String,
    connect: Box<dyn Connect>,
    client: watch::Sender<Option<Arc<NodeClient>>>,
    spares: Mutex<Spares>,
    dials: Semaphore,
}

#[derive(Default)]
struct Spares {
    ready: Vec<(Instant, Box<dyn Wire>)>,
    /// Being made.
    coming: usize,
}

impl FarNode {
    /// Begins to connect; `name` is for logs. Calls fail with [`NodeError::Unreachable`] meanwhile.
    pub fn new(name: &str, connect: impl Connect) -> Self {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            connect: Box::new(connect),
            client: watch::Sender::new(None),
            spares: Mutex::default(),
            dials: Semaphore::new(DIALS_AT_ONCE),
        });
        let keeper = tokio::spawn(keep_connected(Arc::clone(&shared))).abort_handle();
        Self { shared, keeper }
    }

    /// Whether there is a connection now; changes are seen by whoever holds this.
    pub fn connected(&self) -> watch::Receiver<Option<Arc<NodeClient>>> {
        self.shared.client.subscribe()
    }

    fn client(&self) -> Result<Arc<NodeClient>, NodeError> {
        let client = self.shared.client.borrow();
        client.clone().ok_or(NodeError::Unreachable)
    }
}

impl Drop for FarNode {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn keep_connected(shared: Arc<Shared>) {
    let mut wait = RETRY_FIRST;
    let mut away_since = Instant::now();
    let mut last_said = String::new();
    loop {
        let connecting = async {
            let stream = shared.connect.connect(Purpose::Calls).await?;
            NodeClient::connect_stream(stream).await
        };
        let connected = match timeout(CONNECT_MAX, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match connected {
            Ok(client) => {
                let client = Arc::new(client);
                info!(node = shared.name, "connected to node {}", shared.name);
                shared.client.send_replace(Some(Arc::clone(&client)));
                let since = Instant::now();
                tokio::select! {
                    () = client.closed() => {}
                    () = client.silent() => {
                        warn!(node = shared.name, "node {} does not answer any more", shared.name);
                        client.break_off();
                    }
                }
                shared.client.send_replace(None);
                shared.spares().ready.clear();
                // One that hangs up again and again is not asked any faster than one that is away.
                if since.elapsed() >= RETRY_LAST {
                    wait = RETRY_FIRST;
                    away_since = Instant::now();
                }
                last_said.clear();
            }
            Err(error) => {
                // The same every two seconds would fill the log.
                let text = error.to_string();
                if text != last_said {
                    info!(
                        node = shared.name,
                        error = text,
                        "node {} is not reached",
                        shared.name
                    );
                    last_said = text;
                }
            }
        }
        tokio::time::sleep(drawn(wait)).await;
        let longest = match away_since.elapsed() < RESTART_MAX {
            true => RETRY_LAST_AT_FIRST,
            false => RETRY_LAST,
        };
        wait = (wait * 2).min(longest);
    }
}

impl Shared {
    fn spares(&self) -> MutexGuard<'_, Spares> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect_for_dial(&self) -> io::Result<Box<dyn Wire>> {
        let _turn = self.dials.acquire().await;
        self.connect.connect(Purpose::Dial).await
    }

    /// One that is ready; others are made for whoever comes next.
    fn take_spare(self: &Arc<Self>) -> Option<Box<dyn Wire>> {
        let mut spares = self.spares();
        spares
            .ready
            .retain(|(since, _)| since.elapsed() < SPARE_AGE_MAX);
        let taken = spares.ready.pop();
        let wanted = SPARES.saturating_sub(spares.ready.len() + spares.coming);
        spares.coming += wanted;
        drop(spares);
        for _ in 0..wanted {
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                let made = timeout(CONNECT_MAX, shared.connect_for_dial()).await;
                let mut spares = shared.spares();
                spares.coming -= 1;
                match made {
                    Ok(Ok(stream)) => spares.ready.push((Instant::now(), stream)),
                    Ok(Err(error)) => debug!(%error, "make a spare connection"),
                    Err(_) => debug!("a spare connection takes too long"),
                }
            });
        }
        taken.map(|(_, stream)| stream)
    }
}

#[async_trait]
impl NodePort for FarNode {
    async fn create(&self, request: CreateRequest) -> Result<CreateReply, NodeError> {
        self.client()?.create(request).await
    }

    async fn claim(
        &self,
        sandbox: &SandboxId,
        claim: ClaimRequest,
    ) -> Result<CreateReply, NodeError> {
        self.client()?.claim(sandbox, claim).await
    }

    async fn recorded(&self, sandboxes: &[SandboxId]) -> Result<(), NodeError> {
        self.client()?.recorded(sandboxes).await
    }

    async fn kill(&self, sandbox: &SandboxId, reason: EndReason) -> Result<(), NodeError> {
        self.client()?.kill(sandbox, reason).await
    }

    async fn pause(&self, sandbox: &SandboxId, kept: Kept) -> Result<PauseReply, NodeError> {
        self.client()?.pause(sandbox, kept).await
    }

    async fn resume(&self, request: ResumeRequest) -> Result<ResumeReply, NodeError> {
        self.client()?.resume(request).await
    }

    async fn snapshot(
        &self,
        sandbox: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<SnapshotReply, NodeError> {
        self.client()?.snapshot(sandbox, snapshot).await
    }

    async fn keep_paused(
        &self,
        sandbox: &SandboxId,
        files: &SnapshotId,
    ) -> Result<SnapshotId, NodeError> {
        self.client()?.keep_paused(sandbox, files).await
    }

    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<(), NodeError> {
        self.client()?.remove_snapshot(snapshot).await
    }

    async fn snapshots(&self, after: Option<&SnapshotId>) -> Result<Vec<KeptSnapshot>, NodeError> {
        self.client()?.snapshots(after).await
    }

    async fn seal(&self, snapshot: &SnapshotId, layer: &LayerId) -> Result<SealReply, NodeError> {
        self.client()?.seal(snapshot, layer).await
    }

    async fn remove_layer(&self, layer: &LayerId) -> Result<(), NodeError> {
        self.client()?.remove_layer(layer).await
    }

    async fn layers(&self, after: Option<&LayerId>) -> Result<Vec<LayerId>, NodeError> {
        self.client()?.layers(after).await
    }

    async fn missing(
        &self,
        layers: &[String],
        files: Option<&SnapshotId>,
        hold: Option<&str>,
    ) -> Result<Vec<String>, NodeError> {
        self.client()?.missing(layers, files, hold).await
    }

    async fn stored(&self, whats: &[Portable]) -> Result<(), NodeError> {
        self.client()?.stored(whats).await
    }

    async fn memory_kills(&self, sandbox: &SandboxId) -> Result<u64, NodeError> {
        self.client()?.memory_kills(sandbox).await
    }

    async fn set_deadline(&self, sandbox: &SandboxId, ends_at: Timestamp) -> Result<(), NodeError> {
        self.client()?.set_deadline(sandbox, ends_at).await
    }

    async fn set_network(
        &self,
        sandbox: &SandboxId,
        policy: CompiledPolicy,
    ) -> Result<(), NodeError> {
        self.client()?.set_network(sandbox, policy).await
    }

    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<Dialled, NodeError> {
        let wanted = Wanted {
            sandbox: sandbox.clone(),
            port,
        };
        if let Some(mut spare) = self.shared.take_spare()
            && let Ok(answer) = dial::ask(&mut spare, &wanted).await
        {
            return answer.map(|()| Dialled::Far(spare));
        }
        // A spare one may have been closed meanwhile; nothing was sent into the sandbox by it.
        let made = timeout(CONNECT_MAX, self.shared.connect_for_dial()).await;
        let Ok(Ok(mut stream)) = made else {
            return Err(NodeError::Unreachable);
        };
        let answer = dial::ask(&mut stream, &wanted).await;
        answer
            .unwrap_or(Err(NodeError::Unreachable))
            .map(|()| Dialled::Far(stream))
    }

    async fn locate(&self, sandbox: &SandboxId) -> Result<Option<Located>, NodeError> {
        self.client()?.locate(sandbox).await
    }

    async fn info(&self) -> Result<NodeInfo, NodeError> {
        self.client()?.info().await
    }

    async fn watch(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        self.client()?.watch().await
    }

    async fn observe(&self) -> Result<mpsc::Receiver<NodeEvent>, NodeError> {
        self.client()?.observe().await
    }

    async fn until_back(&self) {
        let mut connected = self.connected();
        while connected.changed().await.is_ok() {
            if connected.borrow_and_update().is_some() {
                return;
            }
        }
        std::future::pending().await
    }
}
