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
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
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
    async fn dial(&self) -> io::Result<std::net::TcpStream>;
}

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

type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;
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
            Self::Named(connector) => connector.call(to),
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
    // Whoever dialled may have left it as the kernel makes them, and one that blocks would stop
    // everything else.
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let stream = TcpStream::from_std(stream)?;
    Ok(MaybeHttpsStream::Http(TokioIo::new(stream)))
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named(_) => "Named",
            Self::Dialled(_) => "Dialled",
        })
    }
}
