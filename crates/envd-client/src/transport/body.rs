//! Bodies of requests: known whole, or written while they are sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;

/// The body of any request of ours. An error cuts the request off: its end is not written.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Pieces of a streamed body that may wait for the network. At the limit the writer waits.
const PIECES_MAX: usize = 8;

/// A body that is known whole.
pub(crate) fn whole(content: Bytes) -> Body {
    Full::new(content)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// What it means when the writer of a body is dropped before it said that this was all.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dropped {
    /// The body is over.
    Ends,
    /// The request is cut off, so that nobody takes a part for the whole.
    CutsOff,
}

/// A body that is written piece by piece.
pub(crate) fn channel(dropped: Dropped) -> (BodySender, Body) {
    let (pieces, received) = mpsc::channel(PIECES_MAX);
    let body = Pieces {
        received,
        dropped,
        is_over: false,
    };
    (BodySender { pieces }, body.boxed_unsync())
}

/// Writes the pieces of a streamed body.
#[derive(Debug)]
pub(crate) struct BodySender {
    pieces: mpsc::Sender<Piece>,
}

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    End,
}

/// Nobody takes the body any more: the call has ended, and it knows why.
#[derive(Debug)]
pub(crate) struct NotWanted;

impl BodySender {
    /// Waits until there is room.
    pub(crate) async fn send(&self, data: Bytes) -> Result<(), NotWanted> {
        let sent = self.pieces.send(Piece::Data(data)).await;
        sent.map_err(|_| NotWanted)
    }

    /// Says that this was all. Waits until there is room.
    pub(crate) async fn end(self) -> Result<(), NotWanted> {
        self.pieces.send(Piece::End).await.map_err(|_| NotWanted)
    }
}

struct Pieces {
    received: mpsc::Receiver<Piece>,
    dropped: Dropped,
    is_over: bool,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(self.received.poll_recv(context));
        if let Some(Piece::Data(bytes)) = piece {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        self.is_over = true;
        Poll::Ready(match (piece, self.dropped) {
            (None, Dropped::CutsOff) => Some(Err(io::Error::other("its writer gave it up"))),
            _ => None,
        })
    }
}
