//! A client's byte stream with the limits that HTTP machinery does not keep for us.
//!
//! Owns three bounds, all on the *waiting* side of a connection, where no request is open: how
//! large a request head may grow (an HTTP/1.1 client that exceeds it gets a whole 431 answer), how
//! long a head may take, and how long a connection may idle. One timer serves both times and is
//! re-armed lazily, so that a request costs no timer operation. And it *lingers*: what a client
//! still sends after an HTTP/1.1 answer that ends the connection (a head or a body that nobody
//! wants) is read away for a while, else the kernel's reset would overtake the answer.
//!
//! It must not know HTTP beyond the client's preface.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::connection::ClientConn;

/// How HTTP/2 with prior knowledge begins.
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes read away after the last answer; beyond it the connection is simply closed. Usual clients
/// send all of a body before they read: with less, one that sends a hundred megabytes too many would
/// see a reset in place of its answer.
pub(crate) const LINGER_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Time for a client to take its last answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the first bytes of a connection speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// The bounds, with what is sent when a head is too large.
#[derive(Debug, Clone)]
pub(crate) struct ClientIoLimits {
    pub(crate) head_bytes_max: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) head_too_large: Arc<[u8]>,
}

pub(crate) struct ClientIo<S> {
    stream: S,
    conn: Arc<ClientConn>,
    limits: ClientIoLimits,
    /// `None` until the preface was looked at.
    protocol: Option<Protocol>,
    preface: Preface,
    /// Requests that had begun when the present wait was first seen.
    requests_seen: u64,
    /// Bytes of the head that is being waited for.
    head_bytes: usize,
    /// When the present wait began; after the first request, when its first byte came.
    since: Instant,
    timer: Pin<Box<Sleep>>,
    lingering: Option<Lingering>,
    /// A write waits for the client.
    unsent: bool,
    /// Registered while a write is stuck: the end of the sandbox whose answer it is.
    reset: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// Bytes that were looked at and are to be read again.
#[derive(Default)]
struct Preface {
    bytes: [u8; 24],
    filled: usize,
    taken: usize,
}

/// The end of a connection: what is still to be written of the 431, what was read away.
struct Lingering {
    unsent: Arc<[u8]>,
    sent: usize,
    read_away: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientIo<S> {
    pub(crate) fn new(stream: S, conn: Arc<ClientConn>, limits: ClientIoLimits) -> Self {
        let now = Instant::now();
        Self {
            timer: Box::pin(tokio::time::sleep_until(now + limits.head_timeout)),
            stream,
            conn,
            limits,
            protocol: None,
            preface: Preface::default(),
            requests_seen: 0,
            head_bytes: 0,
            since: now,
            lingering: None,
            unsent: false,
            reset: None,
        }
    }

    /// Reads until the protocol is certain; `None` when the client left or was too slow. Nothing
    /// is lost: the bytes are read again by whoever serves the protocol.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn sniff(&mut self) -> io::Result<Option<Protocol>> {
        std::future::poll_fn(|cx| self.poll_sniff(cx)).await
    }

    fn poll_sniff(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Protocol>>> {
        loop {
            let seen = self.preface.filled;
            let protocol = if self.preface.bytes[..seen] != H2_PREFACE[..seen] {
                Protocol::Http1
            } else if seen == H2_PREFACE.len() {
                Protocol::Http2
            } else {
                let mut bytes = self.preface.bytes;
                let mut buf = ReadBuf::new(&mut bytes[seen..]);
                ready!(self.poll_read_limited(cx, &mut buf))?;
                let read = buf.filled().len();
                if read == 0 {
                    return Poll::Ready(Ok(None));
                }
                self.preface.bytes = bytes;
                self.preface.filled += read;
                continue;
            };
            self.protocol = Some(protocol);
            return Poll::Ready(Ok(Some(protocol)));
        }
    }

    fn poll_read_limited(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.lingering.is_some() {
            return self.poll_linger(cx);
        }
        let waits = self.waits_for_head();
        let http2 = self.protocol == Some(Protocol::Http2);
        if waits && !http2 && self.head_bytes > self.limits.head_bytes_max {
            let answer = Arc::clone(&self.limits.head_too_large);
            self.linger(answer);
            return self.poll_linger(cx);
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                if waits && !http2 {
                    // The first head's time runs from the beginning.
                    if self.head_bytes == 0 && self.requests_seen > 0 {
                        self.since = Instant::now();
                    }
                    self.head_bytes += buf.filled().len() - before;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // Time over reads as the client's end.
            Poll::Pending if self.poll_expired(cx) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether no request is open; notes the beginning of a new wait. A request opens as soon as
    /// its head is whole, and hyper reads on only when what it has is none: so all that is read
    /// meanwhile, but the last read, belongs to one head.
    fn waits_for_head(&mut self) -> bool {
        if self.conn.activity().is_busy() {
            return false;
        }
        let requests = self.conn.activity().requests();
        if requests != self.requests_seen {
            self.requests_seen = requests;
            self.head_bytes = 0;
            self.since = Instant::now();
        }
        true
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let deadline = self.waits_for_head().then(|| {
                let begun = self.head_bytes > 0 || self.requests_seen == 0;
                let limit = if begun {
                    self.limits.head_timeout
                } else {
                    self.limits.idle_timeout
                };
                self.since + limit
            });
            if let Some(deadline) = deadline
                && self.timer.deadline() > deadline
            {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            let now = Instant::now();
            match deadline {
                Some(deadline) if deadline <= now => return true,
                Some(deadline) => self.timer.as_mut().reset(deadline),
                None => self.timer.as_mut().reset(now + self.limits.idle_timeout),
            }
        }
    }

    fn linger(&mut self, unsent: Arc<[u8]>) {
        self.lingering = Some(Lingering {
            unsent,
            sent: 0,
            read_away: 0,
        });
        self.timer.as_mut().reset(Instant::now() + LINGER_TIMEOUT);
    }

    /// Sends what is left and the end, then reads away what the client still sends; ready at the
    /// client's end or a bound.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(lingering) = &mut self.lingering else {
            return Poll::Ready(Ok(()));
        };
        let stream = &mut self.stream;
        let mut away = [0u8; 16 * 1024];
        while self.timer.as_mut().poll(cx).is_pending() {
            let unsent = &lingering.unsent[lingering.sent..];
            if !unsent.is_empty() {
                lingering.sent += ready!(Pin::new(&mut *stream).poll_write(cx, unsent))?;
                continue;
            }
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
            let mut buf = ReadBuf::new(&mut away);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
            lingering.read_away += buf.filled().len();
            if buf.filled().is_empty() || lingering.read_away > LINGER_BYTES_MAX {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn note_unsent(&mut self, unsent: bool) {
        if self.unsent != unsent {
            self.unsent = unsent;
            self.conn.activity().set_unsent(unsent);
        }
    }

    /// Fails a write that waits for the client once the sandbox that it belongs to has ended:
    /// nobody may ever read it, and it must not hold the connection.
    fn cut_if_ended<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.note_unsent(written.is_pending());
        if written.is_ready() {
            self.reset = None;
            return written;
        }
        if self.reset.is_none() {
            self.reset = self
                .conn
                .reset_token()
                .map(|t| Box::pin(t.cancelled_owned()));
        }
        let ended = self.reset.as_mut().map(|ended| ended.as_mut().poll(cx));
        match ended {
            Some(Poll::Ready(())) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let preface = &mut self.preface;
        if preface.taken < preface.filled {
            let take = buf.remaining().min(preface.filled - preface.taken);
            buf.put_slice(&preface.bytes[preface.taken..preface.taken + take]);
            preface.taken += take;
            return Poll::Ready(Ok(()));
        }
        self.poll_read_limited(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.cut_if_ended(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.cut_if_ended(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            // An upgraded connection is busy until its end, and its directions end one by one.
            if self.protocol != Some(Protocol::Http1) || self.conn.activity().is_busy() {
                return Pin::new(&mut self.stream).poll_shutdown(cx);
            }
            self.linger(Arc::default());
        }
        self.poll_linger(cx)
    }
}
