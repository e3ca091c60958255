//! Shakes hands with clients and hands on what they say: one listener's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use rustls::ServerConfig;
use rustls::crypto::ring;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::current::Current;
use crate::handshakes::{Handshakes, Place};

/// A client's connection after its handshake.
pub type Greeted = TlsStream<TcpStream>;

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Silence after which a client's machine is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Time for handshakes that were under way when the listener was left.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);
/// What is read away of a request that came in clear, so that its answer is not overtaken by a
/// reset.
const CLEAR_BYTES_MAX: u64 = 64 * 1024;
const IN_CLEAR: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: 50\r\n\r\n\
    This port speaks https, and the request was http.\n";

/// Bounds on what clients may cost before they are known.
#[derive(Debug, Clone, Copy)]
pub struct DoormanLimits {
    /// Handshakes at once, half of them from one address but loopback; for one more the oldest
    /// ends. Default 512, of which each may make us hold 64 KiB: too low lets a flood push out clients
    /// that are far away.
    pub handshakes_max: usize,
    /// Time for one handshake; then the connection is closed. Default 10 s.
    pub handshake_timeout: Duration,
}

impl Default for DoormanLimits {
    fn default() -> Self {
        Self {
            handshakes_max: 512,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// Takes connections of TLS 1.2 and 1.3, offers HTTP/2 and HTTP/1.1.
#[derive(Clone)]
pub struct Doorman {
    acceptor: TlsAcceptor,
    handshakes: Handshakes,
    timeout: Duration,
}

impl Doorman {
    pub fn new(current: Arc<Current>, limits: DoormanLimits) -> Self {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(current);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshakes: Handshakes::new(limits.handshakes_max),
            timeout: limits.handshake_timeout,
        }
    }

    /// Takes a listener's connections until `shutdown`, and hands each on after its handshake. It
    /// returns when the last handshake that had begun by then is over, at most a second later.
    pub async fn serve(
        &self,
        listener: TcpListener,
        greeted: mpsc::Sender<(Greeted, SocketAddr)>,
        shutdown: CancellationToken,
    ) {
        let tasks = TaskTracker::new();
        let end = CancellationToken::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let place = self.handshakes.begin(peer.ip());
                    let greet = self.clone().greet(stream, peer, place, greeted.clone());
                    let end = end.clone();
                    tasks.spawn(async move { end.run_until_cancelled(greet).await });
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(%error, "connections cannot be accepted at the moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop((listener, greeted));
        tasks.close();
        if tokio::time::timeout(LAST_HANDSHAKES, tasks.wait())
            .await
            .is_err()
        {
            end.cancel();
            tasks.wait().await;
        }
    }

    async fn greet(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        place: Place,
        greeted: mpsc::Sender<(Greeted, SocketAddr)>,
    ) {
        let shake = tokio::time::timeout(self.timeout, self.shake_hands(stream));
        let shaken = tokio::select! {
            shaken = shake => shaken,
            () = place.cut.cancelled() => {
                debug!("too many handshakes: the one with {peer} has lasted longest and ends");
                return;
            }
        };
        match shaken {
            Ok(Ok(Some(stream))) => {
                // The place is held until somebody takes the connection.
                let _ = greeted.send((stream, peer)).await;
            }
            Ok(Ok(None)) => debug!("{peer} spoke no TLS"),
            Ok(Err(error)) => debug!(%error, "the handshake with {peer} failed"),
            Err(_) => debug!("the handshake with {peer} took too long"),
        }
    }

    /// `None`: this is no TLS, and the client was told so if it spoke HTTP.
    async fn shake_hands(&self, mut stream: TcpStream) -> io::Result<Option<Greeted>> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
        sockopt::set_tcp_keepintvl(&stream, KEEPALIVE)?;
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Ok(None);
        }
        // A method begins so, and no record of TLS does.
        if first[0].is_ascii_uppercase() {
            stream.write_all(IN_CLEAR).await?;
            stream.shutdown().await?;
            tokio::io::copy(&mut stream.take(CLEAR_BYTES_MAX), &mut tokio::io::sink()).await?;
            return Ok(None);
        }
        self.acceptor.accept(stream).await.map(Some)
    }
}

#[cfg(test)]
mod tests;
