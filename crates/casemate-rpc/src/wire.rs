//! Bytes both ways, whatever carries them.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection between two of our processes, or through a node into a sandbox.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// What a node gives whoever dials.
pub enum Dialled {
    /// The sandbox's socket itself, as the kernel made it: its node is on this machine.
    Near(std::net::TcpStream),
    /// Bytes through its node.
    Far(Box<dyn Wire>),
}

impl Dialled {
    /// To be read and written. Needs a tokio runtime.
    pub fn into_stream(self) -> io::Result<SandboxStream> {
        match self {
            Self::Near(socket) => {
                // Whoever dialled may have left it as the kernel makes them, and one that blocks
                // would stop everything else.
                socket.set_nonblocking(true)?;
                socket.set_nodelay(true)?;
                Ok(SandboxStream::Near(TcpStream::from_std(socket)?))
            }
            Self::Far(stream) => Ok(SandboxStream::Far(stream)),
        }
    }
}

impl fmt::Debug for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Near(_) => "Near",
            Self::Far(_) => "Far",
        })
    }
}

/// A connection into a sandbox.
pub enum SandboxStream {
    Near(TcpStream),
    Far(Box<dyn Wire>),
}

impl fmt::Debug for SandboxStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Near(_) => "Near",
            Self::Far(_) => "Far",
        })
    }
}

impl AsyncRead for SandboxStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Near(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Far(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for SandboxStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Near(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Far(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Near(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Far(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Near(stream) => stream.is_write_vectored(),
            Self::Far(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Near(stream) => Pin::new(stream).poll_flush(context),
            Self::Far(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Near(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Far(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
