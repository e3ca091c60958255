//! Bodies of requests: known whole, or written while they are sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;

/// The body of any request of ours.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Writes the pieces of a streamed body; dropping it ends the body.
pub(crate) type BodySender = mpsc::Sender<Bytes>;

/// Pieces of a streamed body that may wait for the network. At the limit the writer waits.
const PIECES_MAX: usize = 8;

/// A body that is known whole.
pub(crate) fn bytes(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).boxed_unsync()
}

/// A body that is written piece by piece.
pub(crate) fn channel() -> (BodySender, Body) {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    (sender, Pieces { pieces }.boxed_unsync())
}

struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.pieces
            .poll_recv(context)
            .map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}
