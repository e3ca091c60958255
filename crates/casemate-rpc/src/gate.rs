//! What stands on a node's machine between the network and the node.
//!
//! The node is root and parses no byte of another machine: a process without rights takes the
//! connections, finds out who comes, and carries frames between them and sockets that the node
//! serves ([`Peer`] says for whom). Frames are not looked into. Of a connection into a sandbox the
//! gate gets the socket from the node and copies its bytes.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use casemate_types::SandboxId;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::client::NodeClient;
use crate::dial;
use crate::far::CONNECT_MAX;
use crate::frame::PairChannel;
use crate::frame::stream::StreamChannel;
use crate::protocol::{NodeEvent, Peer};
use crate::wire::{Dialled, Wire};
use crate::{NodeError, NodePort};

/// See the module.
pub struct Gate {
    node: Arc<NodeClient>,
    open: Open,
}

impl Gate {
    /// In front of a node that is reached over a socket pair.
    pub fn new(node: Arc<NodeClient>) -> Self {
        Self {
            node,
            open: Open::default(),
        }
    }

    /// Carries calls until one side leaves; those that are under way when the peer leaves are
    /// carried out.
    pub async fn serve_calls(&self, stream: Box<dyn Wire>, peer: Peer) -> io::Result<()> {
        // A node that hangs answers nobody, and the peer gives up by then.
        let node = timeout(CONNECT_MAX, self.node.connection_for(peer)).await?;
        let node = PairChannel::new(node.map_err(io::Error::other)?)?;
        let far = StreamChannel::new(stream);
        let inwards = async {
            let mut buffer = Vec::new();
            while far.recv(&mut buffer).await? {
                node.send(&buffer, None).await?;
            }
            node.end_sending()
        };
        let outwards = async {
            let mut buffer = Vec::new();
            // A descriptor beside a message can go no further, and is closed here.
            while let Some((length, _)) = node.recv(&mut buffer).await? {
                far.send(buffer[..length].to_vec()).await?;
            }
            far.end_sending().await
        };
        tokio::try_join!(inwards, outwards)?;
        far.written().await;
        Ok(())
    }

    /// Makes connections into sandboxes for a peer, over a stream that it has for one of them.
    pub async fn serve_dials(&self, mut stream: Box<dyn Wire>) -> io::Result<()> {
        while let Some(wanted) = dial::asked(&mut stream).await? {
            // Before the node is asked: what happens to the sandbox from then on cuts it.
            let held = self.open.hold(&wanted.sandbox);
            let dialled = timeout(dial::PATIENCE, self.node.dial(&wanted.sandbox, wanted.port));
            let socket = match dialled.await.unwrap_or(Err(NodeError::Unreachable)) {
                Ok(Dialled::Near(socket)) => socket,
                Ok(Dialled::Far(_)) => {
                    let why = "the node is not on this machine".into();
                    dial::answer(&mut stream, &Err(NodeError::Internal { why })).await?;
                    continue;
                }
                Err(error) => {
                    dial::answer(&mut stream, &Err(error)).await?;
                    continue;
                }
            };
            let mut inside = Dialled::Near(socket).into_stream()?;
            dial::answer(&mut stream, &Ok(())).await?;
            tokio::select! {
                copied = tokio::io::copy_bidirectional(&mut stream, &mut inside) => {
                    copied?;
                }
                () = held.cut.cancelled() => {
                    // Without a word, so that the other side does not take it for the end of a
                    // service's answer.
                    debug!(sandbox.id = %wanted.sandbox, "cut a connection into a sandbox");
                }
            }
            return Ok(());
        }
        Ok(())
    }

    /// Cuts the connections into sandboxes that are paused or ended, so that none crosses into
    /// another run of theirs; until the node is gone.
    pub async fn follow(&self) -> Result<(), NodeError> {
        let mut events = self.node.observe().await?;
        while let Some(event) = events.recv().await {
            match event {
                NodeEvent::Paused(paused) => self.open.cut(&paused.sandbox),
                NodeEvent::Ended { sandbox, .. } => self.open.cut(&sandbox),
                NodeEvent::Running(_)
                | NodeEvent::Synced
                | NodeEvent::Samples(_)
                | NodeEvent::Log { .. }
                | NodeEvent::MemoryFull { .. }
                | NodeEvent::Heartbeat(_) => {}
            }
        }
        Ok(())
    }
}

/// Sandboxes into which connections are open, and what cuts them.
#[derive(Clone, Default)]
struct Open(Arc<Mutex<HashMap<SandboxId, Cut>>>);

struct Cut {
    token: CancellationToken,
    held: usize,
}

/// One connection, until it is dropped.
struct Held {
    all: Open,
    sandbox: SandboxId,
    cut: CancellationToken,
}

impl Open {
    fn hold(&self, sandbox: &SandboxId) -> Held {
        let mut all = self.lock();
        let one = all.entry(sandbox.clone()).or_insert_with(|| Cut {
            token: CancellationToken::new(),
            held: 0,
        });
        one.held += 1;
        Held {
            all: self.clone(),
            sandbox: sandbox.clone(),
            cut: one.token.clone(),
        }
    }

    fn cut(&self, sandbox: &SandboxId) {
        if let Some(one) = self.lock().get_mut(sandbox) {
            // Those that come from now on are of another run.
            std::mem::take(&mut one.token).cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Cut>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(one) = all.get_mut(&self.sandbox) {
            one.held -= 1;
            if one.held == 0 {
                all.remove(&self.sandbox);
            }
        }
    }
}
