//! A listener of a member: handshakes beside each other, and bounds on what strangers may take.
//!
//! Who connects is nobody before the handshake is over. So there is a number of handshakes at once, half
//! of them for one address, and a time for each. One that stands still loses its place to one that comes:
//! members come through a flood, also where it has their address, as behind a translation of addresses.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::crowd::Crowd;
use crate::peers::{Accepted, Peers};

/// Handshakes at once, half of them of one address.
const HANDSHAKES_MAX: usize = 512;
/// Connections that came through and wait for being served.
const ACCEPTED_MAX: usize = 64;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whose listener it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Only members come through.
    Node,
    /// Also who wants to become one.
    Control,
}

/// What comes through a listener; dropping it closes that.
pub struct Arrivals {
    receiver: mpsc::Receiver<Accepted>,
    _task: JoinSet<()>,
}

impl Arrivals {
    /// Takes connections from now on. Needs a tokio runtime.
    pub fn of(listener: TcpListener, peers: Arc<Peers>, at: At) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (sender, receiver) = mpsc::channel(ACCEPTED_MAX);
        let mut task = JoinSet::new();
        task.spawn(accept(listener, peers, at, sender));
        Ok(Self {
            receiver,
            _task: task,
        })
    }

    /// The next one.
    ///
    /// # Cancel safety
    /// None is lost.
    pub async fn next(&mut self) -> Option<Accepted> {
        self.receiver.recv().await
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    peers: Arc<Peers>,
    at: At,
    accepted: mpsc::Sender<Accepted>,
) {
    let (handshakes, mut tasks) = (Crowd::new(HANDSHAKES_MAX), JoinSet::new());
    loop {
        while tasks.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(came) => came,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                warn!(%error, "connections of members cannot be accepted at the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = handshakes.begin(peer.ip());
        let (peers, accepted) = (Arc::clone(&peers), accepted.clone());
        tasks.spawn(async move {
            let shaking = shake(stream, &peers, at);
            match place.cut.run_until_cancelled(shaking).await {
                Some(Ok(one)) => {
                    // The place is held until somebody takes the connection.
                    let _ = accepted.send(one).await;
                }
                Some(Err(error)) => debug!(%error, "the handshake with {peer} failed"),
                None => debug!("too many handshakes: the one with {peer} has lasted longest"),
            }
            drop(place);
        });
    }
}

async fn shake(stream: TcpStream, peers: &Peers, at: At) -> io::Result<Accepted> {
    match at {
        At::Node => peers.accept_at_node(stream).await,
        At::Control => peers.accept_at_control(stream).await,
    }
}
