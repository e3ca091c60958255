//! Bodies of answers, and reading those of requests within bounds.
//!
//! A streamed body is a future that is polled as the body is: no task, no queue in between. When
//! the client hangs up the HTTP layer drops the body, and with it everything the future held.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::limits::{DISCARDED_BYTES, DISCARDING};

type Producer = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// The body of an answer.
pub enum Body {
    Empty,
    Full(Bytes),
    Produced {
        producer: Option<Producer>,
        slot: Slot,
        /// What the producer ended with, told after its last pieces.
        failed: Option<io::Error>,
    },
}

/// Pieces that are there at once travel as one, up to about this much: the last message of a stream
/// and its end would else wake everybody on the way twice.
const JOINED_BYTES_MAX: usize = 16 << 10;

/// Pieces put together; a single one is not copied.
#[derive(Default)]
struct Joined {
    first: Option<Bytes>,
    all: Vec<u8>,
}

impl Joined {
    fn length(&self) -> usize {
        self.all.len() + self.first.as_ref().map_or(0, Bytes::len)
    }

    fn push(&mut self, piece: Option<Bytes>) {
        let Some(piece) = piece else { return };
        if self.first.is_none() && self.all.is_empty() {
            self.first = Some(piece);
        } else {
            self.all
                .extend_from_slice(&self.first.take().unwrap_or_default());
            self.all.extend_from_slice(&piece);
        }
    }

    fn into_bytes(self) -> Option<Bytes> {
        self.first
            .or_else(|| (!self.all.is_empty()).then(|| self.all.into()))
    }
}

/// Where a producer puts the next piece.
#[derive(Clone, Default)]
pub struct Slot(Rc<RefCell<Option<Bytes>>>);

impl Slot {
    /// Hands over one piece and waits until the HTTP layer took it.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have handed over its piece.
    pub async fn send(&self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        // An earlier piece may be there when its sender was cancelled, as by a deadline.
        self.taken().await;
        *self.0.borrow_mut() = Some(piece);
        self.taken().await;
    }

    /// The body takes the piece whenever it has polled its producer, so no waker is needed.
    async fn taken(&self) {
        poll_fn(|_| {
            if self.0.borrow().is_none() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

impl Body {
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::Full(text.into())
    }

    /// A body made by `make`. An error breaks the connection: the client must not take a part for
    /// the whole.
    pub fn produce<F, Fut>(make: F) -> Self
    where
        F: FnOnce(Slot) -> Fut,
        Fut: Future<Output = io::Result<()>> + 'static,
    {
        let slot = Slot::default();
        Self::Produced {
            producer: Some(Box::pin(make(slot.clone()))),
            slot,
            failed: None,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Produced {
                producer,
                slot,
                failed,
            } => {
                let mut joined = Joined::default();
                while let Some(running) = producer
                    && joined.length() < JOINED_BYTES_MAX
                {
                    let polled = running.as_mut().poll(context);
                    let piece = slot.0.borrow_mut().take();
                    let waits = piece.is_none();
                    joined.push(piece);
                    match polled {
                        Poll::Ready(Ok(())) => *producer = None,
                        Poll::Ready(Err(error)) => {
                            *producer = None;
                            *failed = Some(error);
                        }
                        Poll::Pending if waits => break,
                        Poll::Pending => {}
                    }
                }
                let ended = producer.is_none();
                match joined.into_bytes() {
                    Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    None if ended => Poll::Ready(failed.take().map(Err)),
                    None => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Produced { .. } => SizeHint::default(),
        }
    }
}

/// The body of a request. What nobody read of it is read away behind the answer, within bounds: the
/// last bytes of a client come a moment late at times, and the HTTP layer would close the connection
/// for that, without a word and under the client's next request.
///
/// It lives in the server's `LocalSet`.
pub struct RequestBody {
    /// `None` once it ended, or was given up.
    incoming: Option<Incoming>,
}

impl RequestBody {
    pub fn new(incoming: Incoming) -> Self {
        let incoming = (!incoming.is_end_stream()).then_some(incoming);
        Self { incoming }
    }

    /// Reads on, before the answer, what a refused client is still sending: some write all of a
    /// body, and see a broken pipe in place of the answer if the connection is closed meanwhile.
    pub async fn read_off(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            read_away(incoming).await;
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(incoming).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.incoming = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let ended = SizeHint::with_exact(0);
        self.incoming.as_ref().map_or(ended, HttpBody::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take()
            && !incoming.is_end_stream()
        {
            tokio::task::spawn_local(read_away(incoming));
        }
    }
}

/// Reads to the end, or to a bound: then the HTTP layer closes the connection.
async fn read_away(mut body: Incoming) {
    let read = async {
        let mut left = DISCARDED_BYTES;
        while let Some(Ok(piece)) = next_piece(&mut body).await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return;
            }
        }
    };
    // Too slow.
    let _ = timeout(DISCARDING, read).await;
}

/// Why a request's body could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("request body of more than {0} bytes")]
    TooLong(usize),
    #[error("request body broke off: {0}")]
    Broken(#[source] hyper::Error),
}

/// The next piece of a request's body; `None` at its end.
///
/// # Cancel safety
/// Cancel safe: nothing is taken unless it is returned.
pub async fn next_piece<B>(body: &mut B) -> Option<Result<Bytes, B::Error>>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    loop {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        match frame.map(Frame::into_data) {
            Ok(Ok(piece)) if piece.has_remaining() => return Some(Ok(piece)),
            // Trailers and empty pieces.
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// The whole body, if it is not longer than `limit`.
pub async fn whole<B>(body: &mut B, limit: usize) -> Result<Bytes, BodyError>
where
    B: HttpBody<Data = Bytes, Error = hyper::Error> + Unpin,
{
    let mut all = Bytes::new();
    let mut joined = Vec::new();
    while let Some(piece) = next_piece(body).await {
        let piece = piece.map_err(BodyError::Broken)?;
        if all.len() + joined.len() + piece.len() > limit {
            return Err(BodyError::TooLong(limit));
        }
        if all.is_empty() && joined.is_empty() {
            all = piece;
        } else {
            joined.extend_from_slice(&std::mem::take(&mut all));
            joined.extend_from_slice(&piece);
        }
    }
    Ok(if joined.is_empty() {
        all
    } else {
        joined.into()
    })
}

/// Reads and forgets, so that a hang-up is seen and the connection stays usable. Never ends.
pub async fn discard<B>(body: &mut B) -> std::convert::Infallible
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    while let Some(Ok(_)) = next_piece(body).await {}
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(body: &mut Body) -> Poll<Option<Result<Bytes, io::ErrorKind>>> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        Pin::new(body).poll_frame(&mut context).map(|frame| {
            let data = |frame: Frame<Bytes>| frame.into_data().unwrap();
            frame.map(|frame| frame.map(data).map_err(|error| error.kind()))
        })
    }

    #[test]
    fn pieces_that_are_there_travel_together_and_an_error_ends_them() {
        let mut body = Body::produce(|slot| async move {
            slot.send("a".into()).await;
            slot.send("b".into()).await;
            let mut asked = 0;
            poll_fn(|_| {
                asked += 1;
                if asked > 1 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            slot.send("c".into()).await;
            Err(io::ErrorKind::UnexpectedEof.into())
        });
        assert_eq!(poll(&mut body), Poll::Ready(Some(Ok("ab".into()))));
        assert_eq!(poll(&mut body), Poll::Ready(Some(Ok("c".into()))));
        let broken = Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof)));
        assert_eq!(poll(&mut body), broken);
        assert_eq!(poll(&mut body), Poll::Ready(None));
    }

    #[test]
    fn what_is_joined_is_bounded() {
        let piece = Bytes::from(vec![0; JOINED_BYTES_MAX / 2]);
        let mut body = Body::produce(move |slot| async move {
            loop {
                slot.send(piece.clone()).await;
            }
        });
        let Poll::Ready(Some(Ok(first))) = poll(&mut body) else {
            panic!("it has a piece");
        };
        assert_eq!(first.len(), JOINED_BYTES_MAX);
    }
}
