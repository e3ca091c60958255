//! Connections that are kept and used again, and the one place that knows how they are made.

mod answer;
mod base_url;
mod body;
mod connector;
mod download;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::ConfigBuilderExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

pub use answer::Answer;
pub use base_url::BaseUrl;
pub(crate) use body::{Body, BodySender, Dropped, NotWanted, channel, whole};
use connector::Connector;
pub use connector::{Dial, Wire};
pub use download::Download;
pub use upload::UploadProgress;

use crate::error::HttpError;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept. Shorter than what the server keeps, so that a request is
/// never written to a connection that the server is closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an answer may take that is not a stream.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the beginning of a stream may take. The edge may wake a sandbox and dial it before, which
/// takes up to 90 s until it answers by itself that it could not.
pub(crate) const BEGIN_TIMEOUT: Duration = Duration::from_secs(120);

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
        Self::of(Connector::named(trusted.with_no_client_auth()))
    }

    /// For https as well, trusting whom the system trusts, or instead whom `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` name. [`HttpError::Trust`]: that is nobody. Opens nothing yet.
    pub fn with_system_trust() -> Result<Self, HttpError> {
        let trusted = ClientConfig::builder().with_native_roots();
        let trusted = trusted.map_err(|source| HttpError::Trust { source })?;
        Ok(Self::of(Connector::named(trusted.with_no_client_auth())))
    }

    /// For http over connections that `dial` makes. They all lead to one place, whatever host an
    /// address names. Opens nothing yet.
    #[must_use]
    pub fn dialled(dial: Arc<dyn Dial>) -> Self {
        Self::of(Connector::Dialled(dial))
    }

    fn of(connector: Connector) -> Self {
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

    /// Sends a request and reads the whole answer, at most `bytes_max` of it, within `limit` (usually
    /// [`ANSWER_TIMEOUT`]). Nothing is sent twice once a server may have seen it.
    pub async fn call(
        &self,
        request: Request<Bytes>,
        bytes_max: usize,
        limit: Duration,
    ) -> Result<Answer, HttpError> {
        let target = request.uri().to_string();
        let exchange = async {
            let response = self.send(request.map(whole)).await?;
            Answer::read(response, &target, bytes_max).await
        };
        within(limit, &target, exchange).await
    }
}

/// Gives up after `limit`. A connection that is given up in the middle is closed, not used again.
pub(crate) async fn within<T, E: From<HttpError>>(
    limit: Duration,
    target: &str,
    exchange: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(limit, exchange).await {
        Ok(result) => result,
        Err(_) => Err(E::from(HttpError::Timeout {
            target: target.to_owned(),
            after: limit,
        })),
    }
}

impl Default for Transport {
    fn default() -> Self {
        Self::new()
    }
}
