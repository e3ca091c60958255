//! Frames: one JSON value a message, over whatever connects two processes of ours.
//!
//! On one machine that is a `SOCK_SEQPACKET` socket, which carries descriptors beside a message;
//! between machines a stream of bytes ([`stream`]), which does not.

pub(crate) mod stream;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_linux::scm;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::wire::Wire;
use stream::StreamChannel;

/// The longest frame, bytes.
pub(crate) const FRAME_MAX: usize = scm::BYTES_MAX;

/// One end of the wire.
pub(crate) enum Channel {
    Pair(PairChannel),
    Stream(StreamChannel),
}

impl Channel {
    /// Takes a connected `SOCK_SEQPACKET` socket. Needs a tokio runtime.
    pub(crate) fn pair(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self::Pair(PairChannel::new(socket)?))
    }

    /// Takes a stream of bytes. Needs a tokio runtime.
    pub(crate) fn stream(stream: Box<dyn Wire>) -> Self {
        Self::Stream(StreamChannel::new(stream))
    }

    /// Sends one frame; concurrent senders do not mix. [`io::ErrorKind::InvalidInput`]: it is longer
    /// than [`FRAME_MAX`], or has a descriptor that this wire cannot carry, and nothing was sent.
    ///
    /// # Cancel safety
    /// The frame is sent whole or not at all.
    pub(crate) async fn send<T: Serialize>(
        &self,
        frame: &T,
        fd: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(frame)?;
        match (self, fd) {
            (Self::Pair(pair), fd) => pair.send(&bytes, fd).await,
            (Self::Stream(stream), None) => stream.send(bytes).await,
            (Self::Stream(_), Some(_)) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Receives the next frame into `buffer`; `None` when the other end is gone. One receiver at a
    /// time.
    pub(crate) async fn recv<T: DeserializeOwned>(
        &self,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let received = self.recv_long(buffer).await?;
        Ok(received.map(|(frame, fd, _)| (frame, fd)))
    }

    /// The same with the frame's length, bytes.
    pub(crate) async fn recv_long<T: DeserializeOwned>(
        &self,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<(T, Option<OwnedFd>, usize)>> {
        let (length, fd) = match self {
            Self::Pair(pair) => match pair.recv(buffer).await? {
                Some((length, mut fds)) => (length, fds.pop()),
                None => return Ok(None),
            },
            Self::Stream(stream) => match stream.recv(buffer).await? {
                true => (buffer.len(), None),
                false => return Ok(None),
            },
        };
        let frame = serde_json::from_slice(&buffer[..length])?;
        Ok(Some((frame, fd, length)))
    }

    /// Sends no more; the other end sees the end of the connection, and can still answer.
    pub(crate) async fn end_sending(&self) -> io::Result<()> {
        match self {
            Self::Pair(pair) => pair.end_sending(),
            Self::Stream(stream) => stream.end_sending().await,
        }
    }
}

/// Messages of a `SOCK_SEQPACKET` socket.
pub(crate) struct PairChannel {
    socket: AsyncFd<OwnedFd>,
}

impl PairChannel {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        #[expect(
            deprecated,
            reason = "an OwnedFd upholds what its unsafe successor asks for"
        )]
        let socket = AsyncFd::new(socket)?;
        Ok(Self { socket })
    }

    pub(crate) async fn send(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds = fd.as_slice();
        let send = |socket: &OwnedFd| scm::send(socket.as_fd(), bytes, fds);
        self.socket.async_io(Interest::WRITABLE, send).await
    }

    /// `None` when the other end is gone; otherwise the message is so much of the beginning of
    /// `buffer`, which keeps its length: clearing a mebibyte for each message would show.
    pub(crate) async fn recv(
        &self,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
        buffer.resize(FRAME_MAX, 0);
        let recv = |socket: &OwnedFd| scm::recv(socket.as_fd(), &mut *buffer);
        let (length, fds) = self.socket.async_io(Interest::READABLE, recv).await?;
        Ok((length > 0).then_some((length, fds)))
    }

    pub(crate) fn end_sending(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(
            self.socket.get_ref(),
            rustix::net::Shutdown::Write,
        )?)
    }
}
