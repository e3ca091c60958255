//! The HTTP client under `object_store`: hyper with `ring`, which asks for no provider that a `main`
//! must have installed, follows no redirect, and keeps what servers say about failures.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, DATE, RETRY_AFTER};
use http::uri::Scheme;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::client::{
    HttpClient, HttpConnector as Connector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::refused::Refused;
use crate::clock::Clock;

/// Longest answer of any kind; a manifest has at most 185 MB.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// As much as is read of an answer that says why something failed.
const REASON_BYTES_MAX: usize = 64 << 10;
/// Connections that are kept for a while without a request.
const IDLE_CONNECTIONS_MAX: usize = 32;
const IDLE_FOR: Duration = Duration::from_secs(30);

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the authorities are not certificates in PEM")]
    Authorities(#[source] rustls::pki_types::pem::Error),
    #[error("an authority cannot be used")]
    Authority(#[source] rustls::Error),
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

#[derive(Debug, Clone)]
pub(super) struct Service {
    client: Client<HttpsConnector<HttpConnector>, HttpRequestBody>,
    /// Whether requests may go without TLS. Those for the metadata of an instance always may.
    plain_http: bool,
    clock: Clock,
}

impl Service {
    pub(super) fn new(
        authorities_pem: &[u8],
        connect: Duration,
        clock: Clock,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        // Some of a system's own may be of no use to us; the others are.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for certificate in CertificateDer::pem_slice_iter(authorities_pem) {
            roots
                .add(certificate.map_err(TlsError::Authorities)?)
                .map_err(TlsError::Authority)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(connect));
        tcp.set_nodelay(true);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(https);
        let plain_http = false;
        Ok(Self {
            client,
            plain_http,
            clock,
        })
    }
}

impl Connector for Service {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allowed = options.get_config_value(&ClientConfigKey::AllowHttp);
        let plain_http = allowed.as_deref() == Some("true");
        Ok(HttpClient::new(Self {
            plain_http,
            ..self.clone()
        }))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let path = request.uri().path().to_owned();
        if request.uri().scheme() != Some(&Scheme::HTTPS) && !self.plain_http {
            return Err(error(HttpErrorKind::Unknown, PlainHttp));
        }
        let answer = self.client.request(request).await.map_err(not_sent)?;
        let header = |name| answer.headers().get(name)?.to_str().ok();
        if let Some(date) = header(DATE).and_then(|date| httpdate::parse_http_date(date).ok()) {
            self.clock.set(date);
        }
        // `object_store` makes room for as much as is announced.
        if header(CONTENT_LENGTH)
            .and_then(|len| len.parse().ok())
            .is_some_and(|len: u64| len > ANSWER_BYTES_MAX as u64)
        {
            return Err(error(HttpErrorKind::Decode, TooLong));
        }
        match answer.status() {
            status if status.is_success() => {}
            // It has names for these.
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => {}
            _ => return Err(refused(path, answer).await),
        }
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).map_err(broken);
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// That an answer is longer than [`ANSWER_BYTES_MAX`].
#[derive(Debug, thiserror::Error)]
#[error("the answer is longer than {ANSWER_BYTES_MAX} bytes")]
pub(super) struct TooLong;

/// That a request would have gone without TLS, and that was not allowed.
#[derive(Debug, thiserror::Error)]
#[error("it would go without TLS, and plain HTTP is not allowed")]
pub(super) struct PlainHttp;

/// That a connection was not made or did not hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum Transport {
    #[error("{0}")]
    Connect(String),
    #[error("{0}")]
    Cut(String),
}

async fn refused(path: String, answer: http::Response<Incoming>) -> HttpError {
    let (parts, body) = answer.into_parts();
    let retry_after = parts
        .headers
        .get(RETRY_AFTER)
        .and_then(|value| wait(value.to_str().ok()?));
    // Without a reason the status has to do.
    let reason = Limited::new(body, REASON_BYTES_MAX).collect().await;
    let reason = reason.map(|reason| reason.to_bytes()).unwrap_or_default();
    let refused = Refused::new(parts.status, path, retry_after, &parts.headers, &reason);
    error(HttpErrorKind::Unknown, refused)
}

/// `Retry-After`, in seconds or as a date.
fn wait(text: &str) -> Option<Duration> {
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

fn not_sent(failure: hyper_util::client::legacy::Error) -> HttpError {
    let text = innermost(&failure);
    match failure.is_connect() {
        true => error(HttpErrorKind::Unknown, Transport::Connect(text)),
        false => error(HttpErrorKind::Unknown, Transport::Cut(text)),
    }
}

fn broken(failure: Box<dyn Error + Send + Sync>) -> HttpError {
    match failure.is::<http_body_util::LengthLimitError>() {
        true => error(HttpErrorKind::Decode, TooLong),
        false => {
            let text = innermost(failure.as_ref());
            error(HttpErrorKind::Unknown, Transport::Cut(text))
        }
    }
}

/// `Unknown` is what `object_store` does not try again by itself: `super::retry` does that.
fn error(kind: HttpErrorKind, failure: impl Error + Send + Sync + 'static) -> HttpError {
    HttpError::new(kind, failure)
}

/// The last in a chain of errors: of the socket, the resolver or TLS, none of which has a secret.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    match last.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::TimedOut => "it took too long".into(),
        _ => last.to_string(),
    }
}
