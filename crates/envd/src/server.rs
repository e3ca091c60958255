//! Accepting connections and serving HTTP/1.1 on them, all on one thread.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::LocalSet;

use crate::body::RequestBody;
use crate::config::Config;
use crate::guest::Guest;
use crate::limits;
use crate::record::Record;
use crate::route::route;
use crate::startup;

/// How a server is to run.
pub struct Start {
    pub listener: TcpListener,
    pub config: Option<Config>,
    /// Whether this is a sandbox (what `E2B_SANDBOX` says).
    pub in_sandbox: bool,
    /// A file that says how many bytes the disk has, and how many of them are used.
    pub disk: Option<OwnedFd>,
    /// A pipe that does not wait, for lines of the log.
    pub log: Option<OwnedFd>,
    /// The first server of the sandbox's life runs what the template starts; others only tell of it.
    pub is_first: bool,
    /// Where the outcome of that is kept for servers that come after this one.
    pub startup: Option<Record>,
    /// The variables of the last `/init`.
    pub variables: Option<Record>,
    /// Called once, when requests are answered.
    pub ready: Box<dyn FnOnce()>,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("start the event loop")]
    Runtime(#[source] io::Error),
    #[error("use the listening socket")]
    Listener(#[source] io::Error),
}

/// Serves until the process ends.
pub fn serve(start: Start) -> Result<Infallible, ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(ServeError::Runtime)?;
    LocalSet::new().block_on(&runtime, accept(start))
}

async fn accept(start: Start) -> Result<Infallible, ServeError> {
    start
        .listener
        .set_nonblocking(true)
        .map_err(ServeError::Listener)?;
    let listener =
        tokio::net::TcpListener::from_std(start.listener).map_err(ServeError::Listener)?;
    let guest = Guest::new(
        start.config.as_ref(),
        start.in_sandbox,
        start.disk,
        start.log,
    );
    guest.settings.borrow_mut().keep_variables(start.variables);
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    (start.ready)();
    // After it: nobody waits for this.
    guest.log.started();
    if let Some(wanted) = start.config.and_then(|config| config.startup) {
        startup::begin(
            &guest,
            wanted,
            start.is_first,
            start.startup,
            limits::STARTUP,
        );
    }
    loop {
        // The semaphore is never closed; further connections wait in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            continue;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(converse(Rc::clone(&guest), stream, place));
            }
            // Out of descriptors or memory for the moment, or a peer that left already.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn converse(guest: Rc<Guest>, stream: TcpStream, place: OwnedSemaphorePermit) {
    prepare(&stream);
    let service = service_fn(move |request: Request<Incoming>| {
        let guest = Rc::clone(&guest);
        let request = request.map(RequestBody::new);
        async move { Ok::<_, Infallible>(route(guest, request).await) }
    });
    // Its errors are hang-ups and malformed requests, which hyper has answered.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::IDLE_CONNECTION)
        .max_buf_size(limits::HEAD_BYTES)
        .max_headers(limits::HEADERS)
        // The edge says it, by a clock that follows steps back.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    drop(place);
}

/// Small answers leave at once, and a peer that vanished without a word is found out. Both are
/// improvements only: a socket that refuses them works.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(60));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15));
    let _ = sockopt::set_tcp_keepcnt(stream, 4);
    let _ = sockopt::set_socket_keepalive(stream, true);
}
