//! An artifact as a stream, some pieces fetched ahead of who reads.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{FutureExt, Stream};
use tokio::io::{AsyncRead, ReadBuf};

use super::get::{Artifact, Flight};
use crate::error::ArtifactError;

/// A part of an artifact, or the whole: an [`AsyncRead`], and a [`Stream`] of what it is made of.
/// Each byte was checked. After an error it ends.
///
/// # Cancel safety
///
/// No byte is lost between reads. Dropping it ends its requests.
pub struct ArtifactReader {
    artifact: Artifact,
    offset: u64,
    end: u64,
    /// The next piece that nobody fetches yet, and the one after the last.
    next: usize,
    last: usize,
    /// Numbers of pieces with what becomes of them, in order.
    ahead: VecDeque<(usize, Flight)>,
    /// What is left of the piece that is read.
    current: Bytes,
}

impl ArtifactReader {
    pub(super) fn new(artifact: Artifact, offset: u64, end: u64) -> Self {
        let (next, last) = artifact.pieces_of(offset, end);
        let (ahead, current) = (VecDeque::new(), Bytes::new());
        Self {
            artifact,
            offset,
            end,
            next,
            last,
            ahead,
            current,
        }
    }

    fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, ArtifactError>>> {
        while self.ahead.len() < self.artifact.shared.ahead && self.next < self.last {
            self.ahead
                .push_back((self.next, self.artifact.piece(self.next)));
            self.next += 1;
        }
        let Some((number, flight)) = self.ahead.front_mut() else {
            return Poll::Ready(None);
        };
        let (number, fetched) = (*number, ready!(flight.poll_unpin(context)));
        self.ahead.pop_front();
        if fetched.is_err() {
            self.next = self.last;
            self.ahead.clear();
        }
        let part = |piece| self.artifact.part(number, &piece, self.offset, self.end);
        Poll::Ready(Some(fetched.map(part)))
    }
}

impl Stream for ArtifactReader {
    type Item = Result<Bytes, ArtifactError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.current.is_empty() {
            true => self.poll_piece(context),
            false => Poll::Ready(Some(Ok(std::mem::take(&mut self.current)))),
        }
    }
}

impl AsyncRead for ArtifactReader {
    /// Errors are [`ArtifactError`]s: [`ArtifactError::from_io`].
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.current.is_empty() {
            match ready!(self.poll_piece(context)) {
                Some(piece) => self.current = piece.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = self.current.len().min(buffer.remaining());
        buffer.put_slice(&self.current[..len]);
        self.current.advance(len);
        Poll::Ready(Ok(()))
    }
}
