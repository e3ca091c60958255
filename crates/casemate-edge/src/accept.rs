//! Taking connections, and letting them go.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::config::EdgeLimits;
use crate::connection::{ClientConn, Cuts};
use crate::edge::Edge;
use crate::upstream::set_options;

/// How often idle connections into sandboxes are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json; charset=utf-8\r\n\
    connection: close\r\nretry-after: 1\r\ncontent-length: 58\r\n\r\n\
    {\"code\":503,\"message\":\"Too many connections are open now\"}";

/// How a listener's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request came to its end.
    Whole,
    /// So many connections and streams were open at the deadline, and were cut.
    Cut(usize),
}

impl Edge {
    /// Serves a listener until `shutdown`; then stops accepting, lets open requests end until
    /// `drain_timeout` and streams until `drain_streams_timeout`, cuts the rest and returns. One
    /// edge may serve several listeners. [`Edge::announce_end`] before it spares clients requests
    /// on connections that are about to close.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> Drained {
        let tasks = TaskTracker::new();
        let cuts = Cuts::default();
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        // The last ones are taken after `shutdown`, by chance: nothing is over before.
        let takes = self.arrives();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                _ = sweep.tick() => {
                    self.parts().links.sweep();
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer, &tasks, &cuts, &shutdown),
                Err(error) if is_one_clients(&error) => {
                    debug!(%error, "a client left before it was accepted");
                }
                Err(error) => {
                    warn!(%error, "connections cannot be accepted at the moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop((listener, takes));
        drain(self.limits(), tasks, cuts).await
    }

    /// Serves connections that somebody else accepted (TLS), as [`Edge::serve`] does those of a
    /// listener: until `shutdown`, and until their sender is gone, so that what was accepted by
    /// then is served; then it drains. Idle connections to envd are looked through by `serve`.
    pub async fn serve_accepted<S>(
        &self,
        mut accepted: mpsc::Receiver<(S, SocketAddr)>,
        shutdown: CancellationToken,
    ) -> Drained
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tasks = TaskTracker::new();
        let cuts = Cuts::default();
        let takes = self.arrives();
        while let Some((mut stream, peer)) = accepted.recv().await {
            let cuts = cuts.of_one_connection();
            let Some(seat) = self.seat(peer, cuts.hard.clone()) else {
                // As in `admit`: it fits or is not said.
                let refusal = async {
                    stream.write_all(TOO_MANY_CONNECTIONS).await?;
                    stream.shutdown().await
                };
                let _ = refusal.now_or_never();
                continue;
            };
            let conn = ClientConn::new(peer, tasks.clone(), cuts, seat, self.arrives()).over_tls();
            tasks.spawn(self.clone().drive(stream, Arc::new(conn), shutdown.clone()));
        }
        drop(takes);
        shutdown.cancelled().await;
        drain(self.limits(), tasks, cuts).await
    }

    /// Serves one connection that somebody else accepted (TLS), until it ends by itself, or by a
    /// drain as in [`Edge::serve`]. Idle connections to envd are looked through by `serve` only; an
    /// edge with no plain listener drops them when it next uses them, or with their sandbox.
    pub async fn serve_stream<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        shutdown: CancellationToken,
    ) -> Drained
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tasks = TaskTracker::new();
        let cuts = Cuts::default();
        let Some(seat) = self.seat(peer, cuts.hard.clone()) else {
            return Drained::Cut(1);
        };
        let conn = ClientConn::new(peer, tasks.clone(), cuts.clone(), seat, self.arrives());
        let conn = conn.over_tls();
        tasks.spawn(self.clone().drive(stream, Arc::new(conn), shutdown.clone()));
        tasks.close();
        tokio::select! {
            () = tasks.wait() => Drained::Whole,
            () = shutdown.cancelled() => drain(self.limits(), tasks, cuts).await,
        }
    }

    fn admit(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        tasks: &TaskTracker,
        cuts: &Cuts,
        soft: &CancellationToken,
    ) {
        let cuts = cuts.of_one_connection();
        let Some(seat) = self.seat(peer, cuts.hard.clone()) else {
            // Into an empty socket buffer: it fits or the client is gone.
            let _ = stream.try_write(TOO_MANY_CONNECTIONS);
            return;
        };
        if let Err(error) = set_options(&stream) {
            debug!(%error, "a client left as it was accepted");
            return;
        }
        let conn = ClientConn::new(peer, tasks.clone(), cuts, seat, self.arrives());
        tasks.spawn(self.clone().drive(stream, Arc::new(conn), soft.clone()));
    }
}

async fn drain(limits: &EdgeLimits, tasks: TaskTracker, cuts: Cuts) -> Drained {
    tasks.close();
    info!(open = tasks.len(), "draining connections");
    let streams = async {
        tokio::time::sleep(limits.drain_streams_timeout).await;
        cuts.streams.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = tasks.wait() => return Drained::Whole,
        () = streams => {}
        () = tokio::time::sleep(limits.drain_timeout) => {}
    }
    let cut = tasks.len();
    warn!(cut, "the drain's deadline passed: cutting what is open");
    cuts.hard.cancel();
    tasks.wait().await;
    Drained::Cut(cut)
}

/// Whether an accept failed for a reason that concerns that client alone.
fn is_one_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
