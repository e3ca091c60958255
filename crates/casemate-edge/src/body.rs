//! Bodies on their way through: each keeps its connection counted as busy until it is done.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use crate::client_io::LINGER_BYTES_MAX;
use crate::connection::Busy;
use crate::upstream::UpstreamBody;

/// Time for the rest of a request whose answer did not wait for it. In nearly all it is the end of a
/// body and comes an instant later.
const READ_AWAY_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a client sends.
pub struct RequestBody {
    /// `None` once it ended.
    incoming: Option<Incoming>,
    rest: Rest,
    busy: Busy,
}

/// What is to become of a body that its reader gives up before the end. hyper closes a connection
/// for that, without a word if the answer has begun, so whoever gives the answer decides. Given up
/// before that, the body waits here.
#[derive(Clone)]
pub(crate) struct Rest(Arc<Whole>);

struct Whole {
    fate: Mutex<Fate>,
    /// What came was not a body, or ended early.
    broken: AtomicBool,
}

enum Fate {
    Undecided,
    Waits(Incoming, Busy),
    ReadAway,
    /// It ended, or hyper may close the connection.
    Settled,
}

impl Rest {
    fn fate(&self) -> MutexGuard<'_, Fate> {
        self.0.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its client is at fault that it did not come whole.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Relaxed)
    }

    fn settle(&self, fate: Fate) -> Fate {
        std::mem::replace(&mut self.fate(), fate)
    }

    /// The connection is to stay usable: what is given up is read away, and the next request waits
    /// for that. Beyond a bound of bytes or time the connection closes; its client then has a body
    /// under way, and cannot take it for idle.
    pub(crate) fn read_away(&self) {
        let mut own = self.fate();
        match std::mem::replace(&mut *own, Fate::ReadAway) {
            Fate::Undecided | Fate::ReadAway => {}
            Fate::Waits(incoming, busy) => read_away(incoming, busy),
            Fate::Settled => *own = Fate::Settled,
        }
    }

    /// The connection is to be closed unless the body ended; `true`: it did not.
    pub(crate) fn give_up(&self) -> bool {
        !matches!(self.settle(Fate::Settled), Fate::Settled)
    }
}

fn read_away(mut incoming: Incoming, busy: Busy) {
    let tasks = busy.tasks().clone();
    tasks.spawn(async move {
        let reading = async {
            let mut left = LINGER_BYTES_MAX;
            while let Some(Ok(frame)) = incoming.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                left = left.saturating_sub(length);
                if left == 0 {
                    break;
                }
            }
        };
        // Too slow.
        let _ = tokio::time::timeout(READ_AWAY_TIMEOUT, reading).await;
        drop((incoming, busy));
    });
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, busy: Busy) -> Self {
        let incoming = (!incoming.is_end_stream()).then_some(incoming);
        let fate = match incoming {
            Some(_) => Fate::Undecided,
            None => Fate::Settled,
        };
        Self {
            incoming,
            rest: Rest(Arc::new(Whole {
                fate: Mutex::new(fate),
                broken: AtomicBool::new(false),
            })),
            busy,
        }
    }

    pub(crate) fn rest(&self) -> Rest {
        self.rest.clone()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
        let ended = incoming.is_end_stream();
        if let Some(Err(_)) = frame {
            self.rest.0.broken.store(true, Ordering::Relaxed);
        }
        if !matches!(frame, Some(Ok(_))) || ended {
            self.incoming = None;
            self.rest.settle(Fate::Settled);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let ended = SizeHint::with_exact(0);
        self.incoming.as_ref().map_or(ended, Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take() else {
            return;
        };
        let mut fate = self.rest.fate();
        match &*fate {
            Fate::Undecided => *fate = Fate::Waits(incoming, self.busy.clone()),
            Fate::ReadAway => read_away(incoming, self.busy.clone()),
            Fate::Waits(..) | Fate::Settled => {}
        }
    }
}

/// What a client gets.
pub struct EdgeBody {
    kind: Kind,
    busy: Busy,
}

/// A piece of an answer. It waits for its client long after the body that it came from is done,
/// and keeps the connection busy until it is sent.
pub struct AnswerData {
    bytes: Bytes,
    _busy: Busy,
}

impl Buf for AnswerData {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

enum Kind {
    /// Taken when it was sent; also the empty body.
    Whole(Option<Bytes>),
    Api(UnsyncBoxBody<Bytes, BoxError>),
    Sandbox(UpstreamBody),
}

impl EdgeBody {
    pub(crate) fn whole(bytes: Bytes, busy: Busy) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self {
            kind: Kind::Whole(bytes),
            busy,
        }
    }

    pub(crate) fn api<B>(body: B, busy: Busy) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let body = body.map_err(Into::into).boxed_unsync();
        Self {
            kind: Kind::Api(body),
            busy,
        }
    }

    /// The answer is the edge's or the API's, and whole.
    pub(crate) fn is_ours(&self) -> bool {
        match self.kind {
            Kind::Whole(_) | Kind::Api(_) => true,
            Kind::Sandbox(_) => false,
        }
    }

    pub(crate) fn sandbox(body: UpstreamBody, busy: Busy) -> Self {
        Self {
            kind: Kind::Sandbox(body),
            busy,
        }
    }
}

impl Body for EdgeBody {
    type Data = AnswerData;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<AnswerData>, BoxError>>> {
        let frame = match &mut self.kind {
            Kind::Whole(bytes) => bytes.take().map(|b| Ok(Frame::data(b))),
            Kind::Api(body) => ready!(Pin::new(body).poll_frame(cx)),
            Kind::Sandbox(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        let data = |bytes| AnswerData {
            bytes,
            _busy: self.busy.clone(),
        };
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Api(body) => body.is_end_stream(),
            Kind::Sandbox(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Kind::Api(body) => body.size_hint(),
            Kind::Sandbox(body) => body.size_hint(),
        }
    }
}
