//! A way through the operator's proxy: CONNECT (RFC 9110, 9.3.6).

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{Method, Request};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;

use super::dial::{Stream, dial_named};
use super::{Authority, FetchError};
use crate::config::{ConfigError, ProxyConfig};
use crate::credentials::Login;

/// A stream to `target` (`host:port`), as the proxy connects it.
pub(super) async fn tunnel(
    proxy: &ProxyConfig,
    target: &str,
) -> Result<impl Stream + 'static + use<>, FetchError> {
    let at = proxy.authority().ok_or(FetchError::Url)?;
    let stream = dial_named(&at).await?;
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(target)
        .header(HOST, target);
    if let Some((user, password)) = &proxy.credentials {
        let login = Login::new(user, password).map_err(|_| FetchError::Url)?;
        request = request.header(PROXY_AUTHORIZATION, login.header());
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Url)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(FetchError::cut)?;
    // Its work is done when it hands the stream over.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let answer = sender
        .send_request(request)
        .await
        .map_err(FetchError::cut)?;
    if !answer.status().is_success() {
        return Err(FetchError::Proxy(answer.status().as_u16()));
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(FetchError::cut)?;
    Ok(TokioIo::new(upgraded))
}

impl ProxyConfig {
    /// Whether requests can be made of it.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.authority().ok_or(ConfigError::ProxyHost)?;
        match &self.credentials {
            Some((user, password)) if Login::new(user, password).is_err() => {
                Err(ConfigError::ProxyCredentials)
            }
            _ => Ok(()),
        }
    }

    fn authority(&self) -> Option<Authority> {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        Authority::parse(&host, self.port)
    }
}
