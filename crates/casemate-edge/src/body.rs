//! Bodies on their way through: each keeps its connection counted as busy until it is done.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use crate::connection::Busy;
use crate::upstream::UpstreamBody;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a client sends.
pub struct RequestBody {
    incoming: Incoming,
    read: ReadToEnd,
    _busy: Busy,
}

/// Whether a request's body was read to its end.
#[derive(Clone, Default)]
pub(crate) struct ReadToEnd(Arc<AtomicBool>);

impl ReadToEnd {
    pub(crate) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, busy: Busy) -> Self {
        let read = ReadToEnd::default();
        read.0.store(incoming.is_end_stream(), Ordering::Relaxed);
        Self {
            incoming,
            read,
            _busy: busy,
        }
    }

    /// Tells after the body is gone whether it was read.
    pub(crate) fn read_to_end(&self) -> ReadToEnd {
        self.read.clone()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if frame.is_none() || self.incoming.is_end_stream() {
            self.read.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
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
