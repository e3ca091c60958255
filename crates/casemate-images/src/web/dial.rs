//! From a URL to a connection. A name is looked up here and checked here, and nothing but what was
//! checked is connected to: a name that changes its answer in between gains nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::{Authority, FetchError, Hosts, Url};
use super::{address, proxy};

/// As many addresses of a name are tried.
const TRIES_MAX: usize = 4;

/// Bytes of a connection, under TLS or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Hosts {
    /// A connection for requests to this URL.
    pub(super) async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, FetchError> {
        if !url.secure {
            return match self.is_insecure(&url.at) {
                true => Ok(Box::new(self.dial(&url.at).await?)),
                false => Err(FetchError::Plain(url.at.clone())),
            };
        }
        match self.proxy_for(url) {
            Some(proxy) => {
                let target = if proxy.resolves_names || self.is_named(&url.at) {
                    self.checked_literal(&url.at)?;
                    url.at.to_string()
                } else {
                    let addresses = self.addresses(&url.at).await?;
                    let first = addresses.first().copied();
                    first.ok_or(FetchError::Closed(url.at.clone()))?.to_string()
                };
                self.shake_hands(&url.at, proxy::tunnel(proxy, &target).await?)
                    .await
            }
            None => self.shake_hands(&url.at, self.dial(&url.at).await?).await,
        }
    }

    async fn dial(&self, at: &Authority) -> Result<TcpStream, FetchError> {
        connect_first(at, &self.addresses(at).await?).await
    }

    /// Where a host may be connected to: anywhere if the operator named it.
    async fn addresses(&self, at: &Authority) -> Result<Vec<SocketAddr>, FetchError> {
        let mut found = look_up(at).await?;
        if !self.is_named(at) {
            found.retain(|to| address::is_open(to.ip()));
        }
        if found.is_empty() {
            return Err(FetchError::Closed(at.clone()));
        }
        found.truncate(TRIES_MAX);
        Ok(found)
    }

    /// An address that stands where a name may is checked also for a proxy that looks up names.
    fn checked_literal(&self, at: &Authority) -> Result<(), FetchError> {
        match at.host().parse::<IpAddr>() {
            Ok(ip) if !self.is_named(at) && !address::is_open(ip) => {
                Err(FetchError::Closed(at.clone()))
            }
            _ => Ok(()),
        }
    }

    async fn shake_hands(
        &self,
        at: &Authority,
        stream: impl Stream + 'static,
    ) -> Result<Box<dyn Stream>, FetchError> {
        let failed = |error| FetchError::Tls {
            at: at.clone(),
            source: Arc::new(error),
        };
        let name = ServerName::try_from(at.host().to_string())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let connector = TlsConnector::from(self.tls(at));
        let stream = connector.connect(name, stream).await.map_err(failed)?;
        Ok(Box::new(stream))
    }
}

async fn look_up(at: &Authority) -> Result<Vec<SocketAddr>, FetchError> {
    match lookup_host((at.host(), at.port())).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(FetchError::Lookup {
            at: at.clone(),
            source: Arc::new(error),
        }),
    }
}

/// Looks up and dials the operator's own proxy, which may be anywhere.
pub(super) async fn dial_named(at: &Authority) -> Result<TcpStream, FetchError> {
    connect_first(at, &look_up(at).await?).await
}

async fn connect_first(at: &Authority, addresses: &[SocketAddr]) -> Result<TcpStream, FetchError> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    for to in addresses {
        match TcpStream::connect(to).await {
            Ok(stream) => {
                // Failing to set it costs some milliseconds a message.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(FetchError::Connect {
        at: at.clone(),
        source: Arc::new(last),
    })
}
