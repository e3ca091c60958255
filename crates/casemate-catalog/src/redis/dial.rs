//! One connection to Redis: sockets, TLS, the login.

use std::io;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::settings::RedisSettings;

/// Why there is no connection. No text holds a password.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("no connection to {0} was made in time")]
    NotConnected(String),
    /// What speaks no TLS waits for more of what it does not understand.
    #[error("the TLS handshake with {0} was not answered in time: does it speak TLS at that port?")]
    NoTls(String),
    #[error("{0} did not answer the login in time")]
    NoLogin(String),
    #[error("connect to {host}:{port}")]
    Connect {
        host: String,
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("TLS with {host}:{port}")]
    Tls {
        host: String,
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("log in to Redis")]
    Login(#[source] redis::RedisError),
}

/// Why the authorities of a Redis cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("read the authorities of Redis in {path}")]
    Read {
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("there is no authority in {0}")]
    None(String),
    #[error("{0} cannot be the name of a server")]
    Name(String),
    #[error("set up TLS")]
    Setup(#[source] rustls::Error),
}

/// Makes connections to one Redis.
pub(super) struct Dialer {
    settings: RedisSettings,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection and what moves its bytes: without that it is dead.
pub(super) struct Dialled {
    pub(super) connection: MultiplexedConnection,
    pub(super) driver: AbortOnDropHandle<()>,
}

impl Dialer {
    pub(super) fn new(settings: RedisSettings) -> Result<Self, AuthorityError> {
        let tls = settings.tls.then(|| tls_of(&settings)).transpose()?;
        Ok(Self { settings, tls })
    }

    pub(super) fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// What the server says by itself goes to `on_push`, which must not block.
    pub(super) async fn dial(
        &self,
        on_push: impl Fn(PushInfo) -> Result<(), redis::aio::SendError> + Send + Sync + 'static,
    ) -> Result<Dialled, DialError> {
        let until = Instant::now() + self.settings.connection_timeout;
        let (host, port) = (&self.settings.host, self.settings.port);
        let place = || format!("{host}:{port}");
        let connect_error = |source| DialError::Connect {
            host: host.clone(),
            port,
            source,
        };
        let stream = timeout_at(until, TcpStream::connect((&**host, port))).await;
        let stream = stream.map_err(|_| DialError::NotConnected(place()))?;
        let stream = stream.map_err(connect_error)?;
        stream.set_nodelay(true).map_err(connect_error)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(Some(self.settings.call_timeout))
            .set_push_sender(on_push);
        let login = self.login();
        let late = |_| DialError::NoLogin(place());
        let Some((connector, name)) = &self.tls else {
            let logged_in = timeout_at(until, logged_in(&login, stream, config)).await;
            return logged_in.map_err(late)?;
        };
        let stream = timeout_at(until, connector.connect(name.clone(), stream)).await;
        let stream = stream.map_err(|_| DialError::NoTls(place()))?;
        let stream = stream.map_err(|source| DialError::Tls {
            host: host.clone(),
            port,
            source,
        })?;
        let logged_in = timeout_at(until, logged_in(&login, stream, config)).await;
        logged_in.map_err(late)?
    }

    fn login(&self) -> RedisConnectionInfo {
        let settings = &self.settings;
        // The third version of the protocol: the server says by itself what happens.
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(settings.database.into())
            .set_skip_set_lib_name();
        if let Some(user) = &settings.user {
            login = login.set_username(user);
        }
        let password = settings.password.expose();
        if !password.is_empty() {
            login = login.set_password(password);
        }
        login
    }
}

async fn logged_in<C>(
    login: &RedisConnectionInfo,
    stream: C,
    config: AsyncConnectionConfig,
) -> Result<Dialled, DialError>
where
    C: Unpin + tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
{
    let made = MultiplexedConnection::new_with_config(login, stream, config).await;
    let (connection, driver) = made.map_err(DialError::Login)?;
    // Ends with the connection, or with whoever holds it.
    let driver = AbortOnDropHandle::new(tokio::spawn(driver));
    Ok(Dialled { connection, driver })
}

fn tls_of(settings: &RedisSettings) -> Result<(TlsConnector, ServerName<'static>), AuthorityError> {
    let mut roots = RootCertStore::empty();
    match &settings.ca_file {
        Some(path) => {
            let shown = path.display().to_string();
            let read_error = |source: Box<dyn std::error::Error + Send + Sync>| {
                let path = shown.clone();
                AuthorityError::Read { path, source }
            };
            let certificates = CertificateDer::pem_file_iter(path);
            for certificate in certificates.map_err(|error| read_error(Box::new(error)))? {
                let certificate = certificate.map_err(|error| read_error(Box::new(error)))?;
                let added = roots.add(certificate);
                added.map_err(|error| read_error(Box::new(error)))?;
            }
            if roots.is_empty() {
                return Err(AuthorityError::None(shown));
            }
        }
        None => {
            let known = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(known.certs);
            if roots.is_empty() {
                return Err(AuthorityError::None("this system".into()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(AuthorityError::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(settings.host.clone())
        .map_err(|_| AuthorityError::Name(settings.host.clone()))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}
