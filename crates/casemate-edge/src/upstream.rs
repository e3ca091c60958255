//! One connection to a service in a sandbox, and the body that arrives on it.
//!
//! A connection is driven by a task of its own, so that an upload goes on while a client is slow
//! to read. Whoever drops an [`Upstream`] aborts that task: the service sees at once that its
//! client is gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use casemate_types::SandboxId;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tracing::trace;

use crate::body::{BoxError, RequestBody};
use crate::config::EdgeLimits;
use crate::header_rules::field_bytes;
use crate::link::Lease;
use crate::routes::{DialFailure, Dialer, Dialled, Wire};

/// Silence after which the kernel asks whether the other end still lives.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Step by which the wait between two dials grows.
const DIAL_WAIT_STEP: Duration = Duration::from_millis(100);
/// Time for a connection to become reusable after its answer; then it is not kept. It takes longer
/// than a moment only when the request's body is still on its way. Half of what envd gives such a
/// body (`envd/src/limits.rs`), so that the connection is never kept while envd loses patience.
const REUSE_TIMEOUT: Duration = Duration::from_secs(5);
/// What hyper reads of an answer at once, and so the largest head. A client that takes nothing makes
/// us hold two or three such pieces for each of its requests. Twice as much moves no more bytes a
/// second, half of it moves half.
const BUFFER_MAX: usize = 32 * 1024;
/// Informational answers (1xx) that a service may send before its answer. They go no further than
/// here, and services send one or two; one every 20 s says for half an hour that work goes on.
const INFORMATIONAL_MAX: u32 = 100;
/// Bytes of their header fields.
const INFORMATIONAL_BYTES_MAX: usize = 256 * 1024;

/// A connection that is ready for a request, or carries one.
pub(crate) struct Upstream {
    sender: http1::SendRequest<RequestBody>,
    /// `None` once the connection may end by itself.
    driver: Option<AbortHandle>,
    reuse: Reuse,
}

/// What becomes of a connection after its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Services restart, and may be others on the same port: a new connection each time.
    Never,
    /// envd lives as long as its sandbox.
    WithinSandbox,
}

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendFailure {
    #[error(transparent)]
    Dial(#[from] DialFailure),
    #[error("speak TLS with the service")]
    Tls(#[source] io::Error),
    #[error("prepare the connection to the service")]
    Prepare(#[source] hyper::Error),
    /// It was sent, at least in part, and is never sent again.
    #[error("no answer from the service")]
    Sent(#[source] hyper::Error),
    #[error("too many informational answers from the service")]
    Informational,
}

impl SendFailure {
    /// Whether there was a connection, and it broke.
    pub(crate) fn is_break(&self) -> bool {
        match self {
            Self::Tls(_) | Self::Prepare(_) | Self::Sent(_) => true,
            Self::Dial(_) | Self::Informational => false,
        }
    }

    /// Whether the end of a sandbox looks like this, too.
    pub(crate) fn may_be_the_end(&self) -> bool {
        match self {
            Self::Dial(DialFailure::PortClosed | DialFailure::Node(_)) => true,
            Self::Tls(_) | Self::Prepare(_) | Self::Sent(_) => true,
            Self::Dial(DialFailure::NotFound | DialFailure::Paused) | Self::Informational => false,
        }
    }
}

impl Upstream {
    /// Dials and makes ready.
    pub(crate) async fn open(
        dialer: &dyn Dialer,
        tasks: &TaskTracker,
        limits: &EdgeLimits,
        sandbox: &SandboxId,
        port: u16,
        reuse: Reuse,
        tls_host: Option<&str>,
    ) -> Result<Self, SendFailure> {
        let stream = dial(dialer, limits, sandbox, port).await?;
        if let Dialled::Socket(socket) = &stream
            && let Err(error) = set_options(socket)
        {
            // The other end closed it already: what follows will say so.
            trace!(%error, "set options of a connection into {sandbox}");
        }
        let Some(host) = tls_host else {
            return match stream {
                Dialled::Socket(socket) => Self::over(socket, tasks, reuse).await,
                Dialled::Bytes(stream) => Self::over(stream, tasks, reuse).await,
            };
        };
        let stream: Box<dyn Wire> = match stream {
            Dialled::Socket(socket) => Box::new(socket),
            Dialled::Bytes(stream) => stream,
        };
        let speaking = tokio::time::timeout(limits.dial_timeout, dialer.speak_tls(stream, host));
        let spoken = speaking
            .await
            .unwrap_or(Err(io::ErrorKind::TimedOut.into()));
        Self::over(spoken.map_err(SendFailure::Tls)?, tasks, reuse).await
    }

    async fn over(
        wire: impl Wire + 'static,
        tasks: &TaskTracker,
        reuse: Reuse,
    ) -> Result<Self, SendFailure> {
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(BUFFER_MAX)
            .handshake(TokioIo::new(wire))
            .await
            .map_err(SendFailure::Prepare)?;
        let driver = tasks.spawn(async move {
            if let Err(error) = driver.with_upgrades().await {
                trace!(%error, "a connection to a service ended early");
            }
        });
        Ok(Self {
            sender,
            driver: Some(driver.abort_handle()),
            reuse,
        })
    }

    /// Waits until a request can be sent. `false`: it closed.
    pub(crate) async fn ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request; gives it back when nothing of it was sent. A service that sends too many
    /// informational answers is cut off.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let informational = Arc::new(Informational::default());
        let (count, driver) = (Arc::clone(&informational), self.driver.clone());
        hyper::ext::on_informational(&mut request, move |answer| {
            count.add(answer.headers());
            if count.is_too_much()
                && let Some(driver) = &driver
            {
                driver.abort();
            }
        });
        let sent = self.sender.try_send_request(request).await;
        // Also when the answer came behind them: its connection is being cut.
        if informational.is_too_much() {
            return Err(Unanswered::Sent(SendFailure::Informational));
        }
        sent.map_err(|mut error| match error.take_message() {
            Some(request) => Unanswered::NotSent(Box::new(request), error.into_error()),
            None => Unanswered::Sent(SendFailure::Sent(error.into_error())),
        })
    }

    /// Lets the connection end by itself, without cutting what is under way on it.
    fn detach(mut self) {
        self.driver = None;
    }
}

pub(crate) enum Unanswered {
    NotSent(Box<Request<RequestBody>>, hyper::Error),
    Sent(SendFailure),
}

/// What a service sent before its answer to one request. hyper reads it away for as long as it
/// comes, and a service that never ends it would keep a processor busy.
#[derive(Default)]
struct Informational {
    answers: AtomicU32,
    bytes: AtomicUsize,
}

impl Informational {
    fn add(&self, headers: &HeaderMap) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.bytes
            .fetch_add(field_bytes(headers), Ordering::Relaxed);
    }

    fn is_too_much(&self) -> bool {
        self.answers.load(Ordering::Relaxed) > INFORMATIONAL_MAX
            || self.bytes.load(Ordering::Relaxed) > INFORMATIONAL_BYTES_MAX
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

async fn dial(
    dialer: &dyn Dialer,
    limits: &EdgeLimits,
    sandbox: &SandboxId,
    port: u16,
) -> Result<Dialled, DialFailure> {
    let mut attempt = 1;
    loop {
        let dialled = tokio::time::timeout(limits.dial_timeout, dialer.dial(sandbox, port)).await;
        match dialled.unwrap_or(Err(DialFailure::PortClosed)) {
            Err(DialFailure::PortClosed) if attempt < limits.dial_attempts => {
                tokio::time::sleep(DIAL_WAIT_STEP * attempt).await;
                attempt += 1;
            }
            done => return done,
        }
    }
}

/// No delay for small writes, and a sign of life asked for on silent connections.
pub(crate) fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
    Ok(())
}

/// What a service answers. Done, it gives its connection back; dropped before, it cuts it.
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    done: bool,
    ended: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Of a stream: the drain does not wait for its end.
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Present until drop.
    held: Option<(Upstream, Lease)>,
    tasks: TaskTracker,
}

/// The sandbox ended under its answer.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox ended")]
pub(crate) struct SandboxEnded;

/// The edge is ending, and a stream would not.
#[derive(Debug, thiserror::Error)]
#[error("the edge is ending")]
struct StreamCut;

impl UpstreamBody {
    pub(crate) fn new(
        incoming: Incoming,
        upstream: Upstream,
        lease: Lease,
        tasks: TaskTracker,
        cut: Option<CancellationToken>,
    ) -> Self {
        Self {
            incoming,
            done: false,
            ended: None,
            cut: cut.map(|cut| Box::pin(cut.cancelled_owned())),
            held: Some((upstream, lease)),
            tasks,
        }
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<BoxError> {
        let Some((_, lease)) = &self.held else {
            return Poll::Pending;
        };
        let ended = self
            .ended
            .get_or_insert_with(|| Box::pin(lease.ended().clone().cancelled_owned()));
        if ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(SandboxEnded.into());
        }
        match &mut self.cut {
            Some(cut) => cut.as_mut().poll(cx).map(|()| StreamCut.into()),
            None => Poll::Pending,
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(frame)) => Poll::Ready(Some(frame.map_err(Into::into))),
            Poll::Ready(None) => {
                self.done = true;
                Poll::Ready(None)
            }
            Poll::Pending => self.poll_ended(cx).map(|why| Some(Err(why))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        let Some((upstream, lease)) = self.held.take() else {
            return;
        };
        // With a known length the last byte is the end, and nobody asks for more.
        if !self.done && !self.incoming.is_end_stream() {
            return;
        }
        match upstream.reuse {
            Reuse::Never => upstream.detach(),
            Reuse::WithinSandbox if upstream.is_ready() => lease.keep(upstream),
            Reuse::WithinSandbox => {
                self.tasks.spawn(keep_when_ready(upstream, lease));
            }
        }
    }
}

async fn keep_when_ready(mut upstream: Upstream, lease: Lease) {
    let ended = lease.ended().clone();
    let ready = tokio::select! {
        () = ended.cancelled() => return,
        ready = tokio::time::timeout(REUSE_TIMEOUT, upstream.sender.ready()) => ready,
    };
    match ready {
        Ok(Ok(())) => lease.keep(upstream),
        // It closed, or a slow upload is still under way and may end.
        Ok(Err(_)) | Err(_) => upstream.detach(),
    }
}
