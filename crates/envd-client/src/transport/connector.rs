//! How a connection is made: by name, with TLS where the address says so, or by asking whoever can.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tower::Service;

use super::CONNECT_TIMEOUT;

/// Makes connections to one place that has no address here, such as a port inside a sandbox.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// One more connection, to the same place each time. The error's text is what callers see of it.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    async fn dial(&self) -> io::Result<Box<dyn Wire>>;
}

/// Bytes both ways.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Where the connections of one pool come from.
#[derive(Clone)]
pub(super) enum Connector {
    Named(HttpsConnector<HttpConnector>),
    Dialled(Arc<dyn Dial>),
}

impl Connector {
    pub(super) fn named(tls: ClientConfig) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        // Requests are small and answered one by one: waiting to fill a packet only costs time.
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Self::Named(
            HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_or_http()
                .enable_http1()
                .wrap_connector(connector),
        )
    }
}

/// A connection, however it was made.
pub(super) enum Connection {
    /// With TLS it has a kilobyte of state.
    Named(Box<MaybeHttpsStream<TokioIo<TcpStream>>>),
    Dialled(TokioIo<Box<dyn Wire>>),
}

type Fault = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, Fault>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        match self {
            Self::Named(connector) => connector.poll_ready(context),
            Self::Dialled(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        match self {
            Self::Named(connector) => {
                let connecting = connector.call(to);
                Box::pin(async move { Ok(Connection::Named(Box::new(connecting.await?))) })
            }
            Self::Dialled(dial) => {
                let dial = Arc::clone(dial);
                Box::pin(async move { Ok(dialled(&*dial, &to).await?) })
            }
        }
    }
}

async fn dialled(dial: &dyn Dial, to: &Uri) -> io::Result<Connection> {
    if to.scheme() != Some(&Scheme::HTTP) {
        let text = "only http is spoken over connections that are dialled";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, dial.dial())
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(Connection::Dialled(TokioIo::new(stream)))
}

impl hyper_util::client::legacy::connect::Connection for Connection {
    fn connected(&self) -> Connected {
        match self {
            Self::Named(stream) => stream.connected(),
            Self::Dialled(_) => Connected::new(),
        }
    }
}

impl Read for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Named(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Dialled(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl Write for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Named(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Dialled(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Named(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Dialled(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Named(stream) => stream.is_write_vectored(),
            Self::Dialled(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Named(stream) => Pin::new(stream).poll_flush(context),
            Self::Dialled(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Named(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Dialled(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named(_) => "Named",
            Self::Dialled(_) => "Dialled",
        })
    }
}
