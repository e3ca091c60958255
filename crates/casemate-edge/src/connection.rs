//! One client connection: finds out its protocol, serves it, ends it when the edge drains.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use casemate_types::chain;
use http::header::{DATE, Entry};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, trace};

use crate::body::EdgeBody;
use crate::client_io::{ClientIo, ClientIoLimits, Protocol};
use crate::edge::{Cut, Edge};
use crate::refusal::Refusal;
use crate::seats::{Activity, Seat};

/// What an HTTP/1.1 connection buffers at most, unless heads are allowed to be larger. Above our
/// own limit on heads, so that our answer is given, not a bare one.
const HTTP1_BUFFER_MIN: usize = 256 * 1024;
/// Bytes that one HTTP/2 stream may have under way without being read.
const H2_STREAM_WINDOW: u32 = 1024 * 1024;
/// Bytes of all streams of one HTTP/2 connection: what uploads can make us hold.
const H2_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes of one stream's answer that wait to be written, beside the piece that fills it up. hyper's
/// own 400 KiB are held for each stream of a client with large windows that reads nothing.
const H2_SEND_BUFFER: usize = 16 * 1024;
/// A silent HTTP/2 client is asked for a sign of life after this, and cut without one.
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Time for a connection that was accepted just before a drain to show its request.
pub(crate) const DRAIN_FIRST_REQUEST: Duration = Duration::from_secs(1);

/// How a drain ends what does not end by itself.
#[derive(Clone, Default)]
pub(crate) struct Cuts {
    /// Answers that are streams, and upgraded connections.
    pub(crate) streams: CancellationToken,
    /// Everything.
    pub(crate) hard: CancellationToken,
}

impl Cuts {
    /// A connection can be cut alone, to make room.
    pub(crate) fn of_one_connection(&self) -> Self {
        Self {
            streams: self.streams.clone(),
            hard: self.hard.child_token(),
        }
    }
}

/// What all parts of one client connection share.
pub(crate) struct ClientConn {
    pub(crate) peer: SocketAddr,
    /// Holds the drain open; upgraded connections outlive their HTTP connection on it.
    pub(crate) tasks: TaskTracker,
    pub(crate) cuts: Cuts,
    is_tls: bool,
    seat: Seat,
    /// Until the first request begins.
    arrives: Mutex<Option<TaskTrackerToken>>,
    /// On HTTP/1.1, the end of the sandbox that the present answer comes from.
    reset: Mutex<Option<CancellationToken>>,
}

impl ClientConn {
    pub(crate) fn new(
        peer: SocketAddr,
        tasks: TaskTracker,
        cuts: Cuts,
        seat: Seat,
        arrives: TaskTrackerToken,
    ) -> Self {
        Self {
            peer,
            tasks,
            cuts,
            is_tls: false,
            seat,
            arrives: Mutex::new(Some(arrives)),
            reset: Mutex::new(None),
        }
    }

    /// It came over TLS, which somebody else took off.
    pub(crate) fn over_tls(mut self) -> Self {
        self.is_tls = true;
        self
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Counts a new request; `None`: another connection has taken this one's seat.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Busy> {
        if !self.activity().begin() {
            return None;
        }
        *self.reset.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Some(Busy(Arc::clone(self)))
    }

    fn has_arrived(&self) {
        *self.arrives.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn activity(&self) -> &Activity {
        self.seat.activity()
    }

    pub(crate) fn reset_with(&self, ended: CancellationToken) {
        *self.reset.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
    }

    pub(crate) fn reset_token(&self) -> Option<CancellationToken> {
        self.reset
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Held by each part of a request that is under way; a connection without one is idle.
pub(crate) struct Busy(Arc<ClientConn>);

impl Busy {
    /// Where work goes that belongs to the connection.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }
}

impl Clone for Busy {
    fn clone(&self) -> Self {
        self.0.activity().part_begins();
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.activity().part_ends();
    }
}

/// Runs what HTTP/2 starts (one task for each stream) under the drain's count.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

impl Edge {
    /// Serves a connection until it ends; after `soft` it takes no further request.
    pub(crate) async fn drive<S>(self, stream: S, conn: Arc<ClientConn>, soft: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let hard = conn.cuts.hard.clone();
        tokio::select! {
            () = hard.cancelled() => {}
            () = self.drive_protocol(stream, conn, soft) => {}
        }
    }

    async fn drive_protocol<S>(self, stream: S, conn: Arc<ClientConn>, soft: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut io = ClientIo::new(stream, Arc::clone(&conn), self.client_io_limits());
        let late = async {
            soft.cancelled().await;
            tokio::time::sleep(DRAIN_FIRST_REQUEST).await;
        };
        let protocol = tokio::select! {
            protocol = io.sniff() => protocol,
            () = late => return,
        };
        let ended = match protocol {
            Ok(Some(Protocol::Http1)) => self.drive_http1(io, conn, soft).await,
            Ok(Some(Protocol::Http2)) => self.drive_http2(io, conn, soft).await,
            Ok(None) => return,
            Err(error) => {
                trace!(%error, "a client's connection broke before its first request");
                return;
            }
        };
        if let Err(error) = ended {
            debug!(error = %chain(&error), "a client's connection ended early");
        }
    }

    async fn drive_http1<S>(
        self,
        io: ClientIo<S>,
        conn: Arc<ClientConn>,
        soft: CancellationToken,
    ) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let buffer_max = HTTP1_BUFFER_MIN.max(self.limits().head_bytes_max * 4);
        let service = service_fn(move |request| self.clone().begin(&conn, request));
        // `half_close` stays off: with it a client that hangs up while the sandbox is silent goes
        // unnoticed. `ClientIo` keeps the times.
        let serving = http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(buffer_max)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        let mut serving = std::pin::pin!(serving);
        // Polled before the drain is looked at: a request that is there already is answered.
        tokio::select! {
            biased;
            ended = &mut serving => return ended,
            () = soft.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        serving.await
    }

    async fn drive_http2<S>(
        self,
        io: ClientIo<S>,
        conn: Arc<ClientConn>,
        soft: CancellationToken,
    ) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = self.limits();
        let mut builder = http2::Builder::new(Tracked(conn.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.h2_streams_max)
            .max_send_buf_size(H2_SEND_BUFFER)
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .keep_alive_interval(H2_PING_INTERVAL)
            .keep_alive_timeout(H2_PING_TIMEOUT)
            .enable_connect_protocol()
            // Above our own limit, so that our answer is given, not a bare one.
            .max_header_list_size(u32::try_from(limits.head_bytes_max * 4).unwrap_or(u32::MAX));
        let service = service_fn(move |request| self.clone().begin(&conn, request));
        let serving = builder.serve_connection(TokioIo::new(io), service);
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            biased;
            ended = &mut serving => return ended,
            () = soft.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        serving.await
    }

    /// Begins a request at once, not when its answer is first asked for: hyper may read on in
    /// between, and those bytes would count as a head.
    fn begin(
        self,
        conn: &Arc<ClientConn>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<EdgeBody>, Cut>> + use<> {
        let (conn, busy, asks) = (Arc::clone(conn), conn.begin(), self.asks());
        conn.has_arrived();
        async move {
            let busy = busy.ok_or(Cut::NoSeat)?;
            let mut answer = self.answer(&conn, request, busy, asks).await?;
            date(answer.headers_mut());
            Ok(answer)
        }
    }

    fn client_io_limits(&self) -> ClientIoLimits {
        let limits = self.limits();
        ClientIoLimits {
            head_bytes_max: limits.head_bytes_max,
            head_timeout: limits.head_timeout,
            idle_timeout: limits.client_idle_timeout,
            head_too_large: self.head_too_large(),
        }
    }
}

/// Says when it was, unless a service said so itself. Without it hyper does, by a clock that stands
/// still after a step back until the time before it comes round again.
fn date(headers: &mut HeaderMap) {
    let now = httpdate::fmt_http_date(SystemTime::now());
    if let (Entry::Vacant(none), Ok(now)) = (headers.entry(DATE), HeaderValue::from_str(&now)) {
        none.insert(now);
    }
}

/// The bytes sent to an HTTP/1.1 client whose head is too large.
pub(crate) fn head_too_large(limit: usize) -> Arc<[u8]> {
    Refusal::HeadTooLarge { limit }.raw_http1().into()
}
