//! Frames on a `SOCK_SEQPACKET` socket: one JSON value a message, descriptors beside it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_linux::scm;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One end of the wire.
pub(crate) struct Channel {
    socket: AsyncFd<OwnedFd>,
}

impl Channel {
    /// Takes a connected `SOCK_SEQPACKET` socket. Needs a tokio runtime.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        #[expect(
            deprecated,
            reason = "an OwnedFd upholds what its unsafe successor asks for"
        )]
        let socket = AsyncFd::new(socket)?;
        Ok(Self { socket })
    }

    /// Sends one frame; concurrent senders do not mix.
    ///
    /// # Cancel safety
    /// The frame is sent whole or not at all.
    pub(crate) async fn send<T: Serialize>(
        &self,
        frame: &T,
        fd: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(frame)?;
        let fds = fd.as_slice();
        let send = |socket: &OwnedFd| scm::send(socket.as_fd(), &bytes, fds);
        self.socket.async_io(Interest::WRITABLE, send).await
    }

    /// Receives the next frame into `buffer`; `None` when the other end is gone.
    pub(crate) async fn recv<T: DeserializeOwned>(
        &self,
        buffer: &mut [u8],
    ) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let recv = |socket: &OwnedFd| scm::recv(socket.as_fd(), &mut *buffer);
        let (length, mut fds) = self.socket.async_io(Interest::READABLE, recv).await?;
        if length == 0 {
            return Ok(None);
        }
        let frame = serde_json::from_slice(&buffer[..length])?;
        Ok(Some((frame, fds.pop())))
    }
}

impl Channel {
    /// Sends no more; the other end sees the end of the connection, and can still answer.
    pub(crate) fn end_sending(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(
            self.socket.get_ref(),
            rustix::net::Shutdown::Write,
        )?)
    }
}

/// A buffer that holds the longest frame.
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; scm::BYTES_MAX]
}
