//! HTTP to hosts that others name: one connection for each request, to an address that was checked.
//!
//! Every byte that this crate gets from outside comes through here, and every address that it dials is
//! chosen here. A redirect is a new request with a new check.

mod address;
mod authority;
mod dial;
mod error;
mod hosts;
mod proxy;
mod reply;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, RANGE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use authority::{Authority, Url};
pub(crate) use error::FetchError;
pub(crate) use hosts::Hosts;
pub(crate) use reply::Reply;

use crate::config::Patience;

const AGENT: &str = concat!("casemate/", env!("CARGO_PKG_VERSION"));
/// Redirects of one request; registries use one, to where their blobs lie.
const REDIRECTS_MAX: usize = 5;
/// Headers of an answer, in bytes and in number.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 128;
/// Headers that are for the first host alone: RFC 9110, 15.4.
const NOT_REDIRECTED: [http::HeaderName; 1] = [AUTHORIZATION];

/// Speaks HTTP/1.1 with whom [`Hosts`] lets it reach.
pub(crate) struct Web {
    hosts: Hosts,
    patience: Patience,
}

/// One request.
#[derive(Clone)]
pub(crate) struct Ask {
    method: Method,
    headers: HeaderMap,
    body: bytes::Bytes,
}

impl Ask {
    pub(crate) fn get() -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        Self {
            method: Method::GET,
            headers,
            body: bytes::Bytes::new(),
        }
    }

    pub(crate) fn post(body: &'static str, kind: &'static str) -> Self {
        let mut ask = Self::get();
        ask.method = Method::POST;
        ask.body = bytes::Bytes::from_static(body.as_bytes());
        ask.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        ask
    }

    pub(crate) fn accept(mut self, kinds: &'static str) -> Self {
        self.headers.insert(ACCEPT, HeaderValue::from_static(kinds));
        self
    }

    /// Everything from this byte on.
    pub(crate) fn starting_at(mut self, first: u64) -> Self {
        let value = format!("bytes={first}-");
        let value = HeaderValue::try_from(value).expect("digits are visible characters");
        self.headers.insert(RANGE, value);
        self
    }

    pub(crate) fn authorized(mut self, value: Option<HeaderValue>) -> Self {
        if let Some(value) = value {
            self.headers.insert(AUTHORIZATION, value);
        }
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl Web {
    pub(crate) fn new(hosts: Hosts, patience: Patience) -> Self {
        Self { hosts, patience }
    }

    pub(crate) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Asks, and follows redirects. To another host goes no authorization, and from https to http
    /// only a host that the operator named so.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection; nothing else is held.
    pub(crate) async fn send(&self, mut url: Url, mut ask: Ask) -> Result<Reply, FetchError> {
        for _ in 0..=REDIRECTS_MAX {
            let reply = self.send_once(&url, &ask).await?;
            let Some(location) = redirect(&reply, &ask)? else {
                return Ok(reply);
            };
            let next = url.join(location).ok_or(FetchError::Redirect)?;
            if next.at != url.at || (url.secure && !next.secure) {
                for name in NOT_REDIRECTED {
                    ask.headers.remove(name);
                }
            }
            url = next;
        }
        Err(FetchError::Redirects(REDIRECTS_MAX))
    }

    async fn send_once(&self, url: &Url, ask: &Ask) -> Result<Reply, FetchError> {
        let connecting = self.hosts.connect(url);
        let stream = timeout(self.patience.connect, connecting)
            .await
            .map_err(|_| FetchError::ConnectSlow(url.at.clone()))??;
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(&url.path)
            .body(Full::new(ask.body.clone()))
            .map_err(|_| FetchError::Url)?;
        *request.headers_mut() = ask.headers.clone();
        let host = HeaderValue::try_from(url.at.for_header(url.secure));
        request
            .headers_mut()
            .insert(HOST, host.map_err(|_| FetchError::Url)?);

        let answered = async {
            let (mut sender, connection) = http1::Builder::new()
                .max_buf_size(HEAD_BYTES_MAX)
                .max_headers(HEADERS_MAX)
                .handshake(TokioIo::new(stream))
                .await?;
            let connection = AbortOnDropHandle::new(tokio::spawn(async move {
                // What breaks it also ends the answer, and is told there.
                let _ = connection.await;
            }));
            let answer = sender.send_request(request).await?;
            Ok::<_, hyper::Error>((answer, connection))
        };
        let stall = self.patience.stall;
        let (answer, connection) = timeout(stall, answered)
            .await
            .map_err(|_| FetchError::Stalled(stall))?
            .map_err(FetchError::cut)?;
        Ok(Reply::new(url.at.clone(), answer, connection, stall))
    }
}

/// Where a GET is sent on to.
fn redirect<'a>(reply: &'a Reply, ask: &Ask) -> Result<Option<&'a str>, FetchError> {
    let moved = matches!(
        reply.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !moved || ask.method != Method::GET {
        return Ok(None);
    }
    let location = reply.header(LOCATION).ok_or(FetchError::Redirect)?;
    Ok(Some(location))
}
