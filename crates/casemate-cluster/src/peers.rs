//! Connections between members: mutual TLS 1.3, with who is at the other end.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use casemate_rpc::Wire;
use casemate_rpc::control::{Member, MemberRole};
use casemate_rpc::far::{Connect, Purpose};
use rustix::net::sockopt;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::fingerprint;
use crate::identity::{Identity, IdentityError};
use crate::names::{host_of, host_of_role, member_of};

/// Protocols by name, as the handshake agrees on them.
const CALLS: &[u8] = b"casemate-calls/1";
const DIAL: &[u8] = b"casemate-dial/1";
const CARRY: &[u8] = b"casemate-carry/1";
const CONTROL: &[u8] = b"casemate-control/1";

/// How long a handshake may take, the connection's making included.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Bytes that nobody acknowledges for so long end a connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// Silence after which the kernel asks whether the other end still lives.
const KEEPALIVE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the certificate cannot be used")]
    Tls(#[from] rustls::Error),
    #[error("members' certificates cannot be checked")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// How this member meets others; renewed under open connections.
pub struct Peers {
    configs: RwLock<Arc<Configs>>,
}

struct Configs {
    node: Arc<ServerConfig>,
    control: Arc<ServerConfig>,
    calls: Arc<ClientConfig>,
    dial: Arc<ClientConfig>,
    carry: Arc<ClientConfig>,
    to_control: Arc<ClientConfig>,
}

/// What came to a listener.
pub struct Accepted {
    pub stream: Box<dyn Wire>,
    /// `None`: it showed no certificate, as one that wants to join.
    pub member: Option<Member>,
    pub purpose: Purpose,
    /// From where it came.
    pub address: IpAddr,
}

impl Peers {
    pub fn new(identity: &Identity) -> Result<Self, PeerError> {
        Ok(Self {
            configs: RwLock::new(Arc::new(Configs::new(identity)?)),
        })
    }

    /// Connections that are made from now on show another certificate.
    pub fn renew(&self, identity: &Identity) -> Result<(), PeerError> {
        let configs = Arc::new(Configs::new(identity)?);
        *self.configs.write().unwrap_or_else(PoisonError::into_inner) = configs;
        Ok(())
    }

    /// A connection to a node's gate; only members come through.
    pub async fn accept_at_node(&self, stream: TcpStream) -> io::Result<Accepted> {
        accept(stream, Arc::clone(&self.configs().node)).await
    }

    /// A connection to an API server; also of who wants to become a member.
    pub async fn accept_at_control(&self, stream: TcpStream) -> io::Result<Accepted> {
        accept(stream, Arc::clone(&self.configs().control)).await
    }

    /// Connects to an API server, whichever answers at this address (`host:port`).
    pub async fn connect_to_control(&self, address: &str) -> io::Result<Box<dyn Wire>> {
        let config = Arc::clone(&self.configs().to_control);
        connect(address, &host_of_role(MemberRole::Api), config).await
    }

    async fn connect_to_node(
        &self,
        address: &str,
        node: &str,
        purpose: Purpose,
    ) -> io::Result<Box<dyn Wire>> {
        let configs = self.configs();
        let config = match purpose {
            Purpose::Calls => Arc::clone(&configs.calls),
            Purpose::Dial => Arc::clone(&configs.dial),
            Purpose::Carry => Arc::clone(&configs.carry),
        };
        let member = Member {
            role: MemberRole::Node,
            name: node.to_owned(),
        };
        connect(address, &host_of(&member), config).await
    }

    fn configs(&self) -> Arc<Configs> {
        let configs = self.configs.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&configs)
    }
}

/// Connects to an API server of the cluster whose authority has this fingerprint, without being a
/// member of it.
pub async fn connect_to_join(address: &str, authority: [u8; 32]) -> io::Result<Box<dyn Wire>> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Pinned {
        fingerprint: authority,
        provider: Arc::clone(&provider),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let config = with_protocol(config, CONTROL);
    let connected = connect(address, &host_of_role(MemberRole::Api), Arc::new(config)).await;
    connected.map_err(explained)
}

/// In words for whoever gave the address and the token.
fn explained(error: io::Error) -> io::Error {
    let cause = error.get_ref();
    let why = match cause.and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => NotAServer::NoTls,
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            NotAServer::OfAnotherCluster
        }
        _ => return error,
    };
    io::Error::new(error.kind(), why)
}

/// Who is there is not whom a machine joins at.
#[derive(Debug, thiserror::Error)]
enum NotAServer {
    #[error(
        "there is no TLS: machines join where API servers take calls of members (cluster.listen, port \
         8082), not where their REST API is"
    )]
    NoTls,
    #[error("who is there is no API server of the cluster that the token is of")]
    OfAnotherCluster,
}

impl Configs {
    fn new(identity: &Identity) -> Result<Self, PeerError> {
        let provider = Arc::new(ring::default_provider());
        let (roots, certified) = (identity.roots()?, identity.certified()?);
        let shown = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        let clients = |strangers: bool| {
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::clone(&roots),
                Arc::clone(&provider),
            );
            match strangers {
                true => verifier.allow_unauthenticated(),
                false => verifier,
            }
            .build()
        };
        let server = |strangers: bool, protocols: &[&[u8]]| {
            let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&TLS13])?
                .with_client_cert_verifier(clients(strangers)?)
                .with_cert_resolver(Arc::clone(&shown) as _);
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Ok::<_, PeerError>(Arc::new(config))
        };
        let client = |protocol| {
            let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&TLS13])?
                .with_root_certificates(Arc::clone(&roots))
                .with_client_cert_resolver(Arc::clone(&shown) as _);
            Ok::<_, PeerError>(Arc::new(with_protocol(config, protocol)))
        };
        Ok(Self {
            node: server(false, &[CALLS, DIAL, CARRY])?,
            control: server(true, &[CONTROL])?,
            calls: client(CALLS)?,
            dial: client(DIAL)?,
            carry: client(CARRY)?,
            to_control: client(CONTROL)?,
        })
    }
}

fn with_protocol(mut config: ClientConfig, protocol: &[u8]) -> ClientConfig {
    config.alpn_protocols = vec![protocol.to_vec()];
    config
}

async fn accept(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<Accepted> {
    set_options(&stream)?;
    let address = stream.peer_addr()?.ip();
    let accepting = TlsAcceptor::from(config).accept(stream);
    let stream = timeout(HANDSHAKE_MAX, accepting).await??;
    let (_, connection) = stream.get_ref();
    let refused = |text| io::Error::new(io::ErrorKind::InvalidData, text);
    let purpose = match connection.alpn_protocol() {
        Some(protocol) if protocol == DIAL => Purpose::Dial,
        Some(protocol) if protocol == CARRY => Purpose::Carry,
        Some(_) => Purpose::Calls,
        // A peer that offers none is let through by the handshake.
        None => return Err(refused("a peer that names no protocol")),
    };
    let member = match connection.peer_certificates() {
        None | Some([]) => None,
        Some([first, ..]) => {
            Some(shown(first).ok_or_else(|| refused("a certificate that names no member"))?)
        }
    };
    Ok(Accepted {
        stream: Box::new(stream),
        member,
        purpose,
        address,
    })
}

/// Whom a certificate that was checked already names.
fn shown(certificate: &CertificateDer<'_>) -> Option<Member> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    parsed.valid_dns_names().find_map(member_of)
}

async fn connect(
    address: &str,
    host: &str,
    config: Arc<ClientConfig>,
) -> io::Result<Box<dyn Wire>> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        set_options(&stream)?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(config).connect(name, stream).await
    };
    Ok(Box::new(timeout(HANDSHAKE_MAX, connecting).await??))
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
    let millis = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, millis)?;
    Ok(())
}

/// Connections to one node.
pub struct NodeConnector {
    pub peers: Arc<Peers>,
    pub node: String,
    /// `host:port` of its gate.
    pub address: String,
}

#[async_trait]
impl Connect for NodeConnector {
    async fn connect(&self, purpose: Purpose) -> io::Result<Box<dyn Wire>> {
        self.peers
            .connect_to_node(&self.address, &self.node, purpose)
            .await
    }
}

/// Takes who was signed by the one authority with this fingerprint, which the server shows itself.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = intermediates
            .iter()
            .find(|one| fingerprint(one) == self.fingerprint);
        let mut roots = RootCertStore::empty();
        roots.add(authority.ok_or(unknown)?.clone())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&self.provider));
        let verifier = verifier
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
