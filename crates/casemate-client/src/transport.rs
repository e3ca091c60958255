//! Connections that are kept and used again, and the one place that knows how they are made.

mod base_url;
mod body;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

pub use base_url::BaseUrl;
pub(crate) use body::{Body, BodySender, bytes, channel};

use crate::error::HttpError;

type Connector = HttpsConnector<HttpConnector>;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept. Shorter than what the server keeps, so that a request is
/// never written to a connection that the server is closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an answer may take that is not a stream.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A pool of connections to any number of servers. Cheap to clone; clones share the pool.
#[derive(Debug, Clone)]
pub struct Transport {
    client: Client<Connector, Body>,
}

impl Transport {
    /// For http: no certificate is trusted. Opens nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let trusted = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        Self::of(trusted.with_no_client_auth())
    }

    /// For https as well, trusting whom the system trusts, or instead whom `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` name. [`HttpError::Trust`]: that is nobody. Opens nothing yet.
    pub fn with_system_trust() -> Result<Self, HttpError> {
        let trusted = ClientConfig::builder().with_native_roots();
        let trusted = trusted.map_err(|source| HttpError::Trust { source })?;
        Ok(Self::of(trusted.with_no_client_auth()))
    }

    fn of(tls: ClientConfig) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        // Requests are small and answered one by one: waiting to fill a packet only costs time.
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Self { client }
    }

    /// Sends a request and answers when the head of the response is there.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, HttpError> {
        let target = request.uri().to_string();
        self.client
            .request(request)
            .await
            .map_err(|source| HttpError::Send { target, source })
    }

    /// Sends a request and reads the whole answer, at most `bytes_max` of it, within
    /// [`ANSWER_TIMEOUT`].
    pub(crate) async fn call(
        &self,
        request: Request<Body>,
        bytes_max: usize,
    ) -> Result<Answer, HttpError> {
        let target = request.uri().to_string();
        let exchange = async {
            let response = self.send(request).await?;
            Answer::read(response, &target, bytes_max).await
        };
        // Given up in the middle, the connection is closed and not used again.
        match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Timeout {
                target: target.clone(),
                after: ANSWER_TIMEOUT,
            }),
        }
    }
}

impl Default for Transport {
    fn default() -> Self {
        Self::new()
    }
}

/// An answer read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) async fn read(
        response: Response<Incoming>,
        target: &str,
        bytes_max: usize,
    ) -> Result<Self, HttpError> {
        let (head, body) = response.into_parts();
        let body = match Limited::new(body, bytes_max).collect().await {
            Ok(body) => body.to_bytes(),
            Err(source) if source.is::<LengthLimitError>() => {
                return Err(HttpError::TooLong {
                    target: target.to_owned(),
                    bytes_max,
                });
            }
            Err(source) => {
                return Err(HttpError::Read {
                    target: target.to_owned(),
                    source,
                });
            }
        };
        Ok(Self {
            status: head.status,
            headers: head.headers,
            body,
        })
    }
}
