//! A world to put the edge into: sandboxes that are listeners on loopback, and clients.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use bytes::Bytes;
use casemate_edge::{
    DialFailure, Dialer, Dialled, Drained, Edge, EdgeConfig, Knock, LookupFailure, RouteTarget,
    Routes, WakeFailure, Wire,
};
use casemate_types::{PeerAddr, SandboxId};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::stalled::Endless;

pub const ID: &str = "iabcdefghij0123456789";
pub const DOMAIN: &str = "demo.test:8443";
pub const ENVD: u16 = 49983;
/// Longer than anything here may take.
pub const LONG: Duration = Duration::from_secs(20);

/// Which sandboxes run and where their ports really are.
#[derive(Default)]
pub struct World {
    ports: Mutex<HashMap<(SandboxId, u16), SocketAddr>>,
    routes: Mutex<HashMap<SandboxId, RouteTarget>>,
    pub dials: AtomicUsize,
    /// Whoever holds it holds every dial up.
    pub gate: tokio::sync::Mutex<()>,
    pub wakes: AtomicUsize,
    /// Dials find it paused, whatever its route says.
    pub paused: Mutex<bool>,
    /// Of the next wake.
    pub wake_failure: Mutex<Option<WakeFailure>>,
    /// Hosts that services were told in TLS.
    pub tls_hosts: Mutex<Vec<String>>,
    /// Services that speak TLS answer without end, and what is taken of that is counted here.
    pub endless: Mutex<Option<Arc<AtomicUsize>>>,
    /// Makes lookups fail.
    pub broken: Mutex<bool>,
}

impl World {
    pub fn run(&self, id: &str, target: RouteTarget) {
        let id = SandboxId::parse(id).unwrap();
        self.routes.lock().unwrap().insert(id, target);
    }

    pub fn end(&self, id: &str) {
        self.routes
            .lock()
            .unwrap()
            .remove(&SandboxId::parse(id).unwrap());
    }

    pub fn open(&self, id: &str, port: u16, at: SocketAddr) {
        let id = SandboxId::parse(id).unwrap();
        self.ports.lock().unwrap().insert((id, port), at);
    }

    pub fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Routes for World {
    async fn lookup(&self, id: &SandboxId) -> Result<Option<RouteTarget>, LookupFailure> {
        if *self.broken.lock().unwrap() {
            return Err(LookupFailure::Failed("the catalog is away".into()));
        }
        Ok(self.routes.lock().unwrap().get(id).cloned())
    }

    /// A knock for envd needs the token `right`; one for a port wakes.
    async fn wake(&self, id: &SandboxId, knock: Knock) -> Result<(), WakeFailure> {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.lock().await);
        if let Some(failure) = self.wake_failure.lock().unwrap().take() {
            return Err(failure);
        }
        if knock.for_agent && knock.access_token.is_none_or(|token| token != "right") {
            return Err(WakeFailure::Denied);
        }
        self.run(id.as_str(), RouteTarget::RUNNING);
        Ok(())
    }
}

#[async_trait]
impl Dialer for World {
    async fn dial(&self, id: &SandboxId, port: u16) -> Result<Dialled, DialFailure> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.lock().await);
        if *self.paused.lock().unwrap() {
            return Err(DialFailure::Paused);
        }
        let at = self.ports.lock().unwrap().get(&(id.clone(), port)).copied();
        let at = at.ok_or(DialFailure::PortClosed)?;
        Ok(Dialled::Socket(TcpStream::connect(at).await?))
    }

    async fn speak_tls(&self, stream: Box<dyn Wire>, host: &str) -> io::Result<Box<dyn Wire>> {
        self.tls_hosts.lock().unwrap().push(host.to_owned());
        Ok(match &*self.endless.lock().unwrap() {
            Some(taken) => Box::new(Endless::new(Arc::clone(taken))),
            None => stream,
        })
    }
}

/// An edge at work, with one running sandbox `ID`.
pub struct Stage {
    pub edge: Edge,
    pub world: Arc<World>,
    pub addr: SocketAddr,
    pub shutdown: CancellationToken,
    pub serving: JoinHandle<Drained>,
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(adjust: impl FnOnce(&mut EdgeConfig)) -> Self {
        let world = Arc::new(World::default());
        world.run(ID, RouteTarget::RUNNING);
        let mut config = EdgeConfig::new(DOMAIN);
        config.hosts.push("box".to_owned());
        adjust(&mut config);
        let edge = Edge::new(config, world.clone(), world.clone(), api());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn({
            let (edge, shutdown) = (edge.clone(), shutdown.clone());
            async move { edge.serve(listener, shutdown).await }
        });
        Self {
            edge,
            world,
            addr,
            shutdown,
            serving,
        }
    }

    /// Serves a router as a port of the sandbox.
    pub async fn service(&self, port: u16, router: Router) -> SocketAddr {
        let listener = self.listener(port).await;
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        at
    }

    /// A bare listener as a port of the sandbox.
    pub async fn listener(&self, port: u16) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.world.open(ID, port, listener.local_addr().unwrap());
        listener
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// A connection from any address, of a stream without the kernel's buffers.
    pub fn stream(&self, peer: &str) -> DuplexStream {
        self.stream_with(peer, 4096)
    }

    /// Likewise, and so many bytes may be under way on it.
    pub fn stream_with(&self, peer: &str, buffer: usize) -> DuplexStream {
        let (client, server) = tokio::io::duplex(buffer);
        let (edge, peer) = (self.edge.clone(), peer.parse().unwrap());
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move { edge.serve_stream(server, peer, shutdown).await });
        client
    }

    pub async fn http1(&self) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.connect().await);
        let (sender, conn) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(conn.with_upgrades());
        sender
    }

    pub async fn http2(&self) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.connect().await);
        let (sender, conn) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap();
        tokio::spawn(conn);
        sender
    }

    /// Client connections that the edge holds open.
    pub fn serving_connections(&self) -> usize {
        self.edge.connections()
    }

    /// One request on a connection of its own, in bytes, and all that comes back until the end.
    pub async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        read_all(&mut stream).await
    }
}

/// The API's stand-in: says that it was asked, and by whom.
fn api() -> Router {
    Router::new().fallback(|request: axum::extract::Request| async move {
        let peer = request.extensions().get::<PeerAddr>().unwrap().0.ip();
        format!("api {} {peer}", request.uri().path())
    })
}

pub fn host(port: u16) -> String {
    format!("{port}-{ID}.{DOMAIN}")
}

pub fn get(port: u16, path: &str) -> Request<Full<Bytes>> {
    Request::get(path)
        .header("host", host(port))
        .body(Full::default())
        .unwrap()
}

pub fn sandbox() -> SandboxId {
    SandboxId::parse(ID).unwrap()
}

pub async fn text(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub async fn read_all(stream: &mut TcpStream) -> String {
    let mut out = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut out)).await;
    read.expect("the connection is closed in time").unwrap();
    String::from_utf8_lossy(&out).into_owned()
}

/// Reads until the bytes contain `needle`.
pub async fn read_until(stream: &mut TcpStream, needle: &str) -> String {
    let mut out = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&out).contains(needle) {
            let mut buf = [0; 4096];
            let n = stream.read(&mut buf).await.unwrap();
            assert!(
                n > 0,
                "closed before {needle:?}: {:?}",
                String::from_utf8_lossy(&out)
            );
            out.extend_from_slice(&buf[..n]);
        }
    };
    let read = tokio::time::timeout(LONG, reading).await;
    assert!(read.is_ok(), "no {needle:?} in time");
    String::from_utf8_lossy(&out).into_owned()
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let held = tokio::time::timeout(LONG, waiting).await;
    assert!(held.is_ok(), "never: {what}");
}
