//! A stream that ends well only once its writer has said that this was all.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// Reads a socket to its end; there it waits for the word of who wrote. Without a good one the end is
/// an error, so that nobody takes a part for the whole.
pub(crate) struct Whole {
    stream: UnixStream,
    /// `None`: it was good.
    said: Option<oneshot::Receiver<bool>>,
}

impl Whole {
    pub(crate) fn new(stream: UnixStream, said: oneshot::Receiver<bool>) -> Self {
        Self {
            stream,
            said: Some(said),
        }
    }
}

impl AsyncRead for Whole {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(said) = &mut self.said {
            match ready!(Pin::new(said).poll(context)) {
                Ok(true) => self.said = None,
                Ok(false) | Err(_) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        Poll::Ready(Ok(()))
    }
}
