//! TLS with services in sandboxes (`httpsPorts`): encrypted because the service speaks nothing else,
//! not because somebody is to be told apart. The connection was made inside the sandbox, so whose
//! certificate the service shows says nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connects; one for all services.
pub struct ServiceTls(TlsConnector);

impl Default for ServiceTls {
    fn default() -> Self {
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has what the default versions need")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Nothing of one service is told another.
        config.resumption = rustls::client::Resumption::disabled();
        Self(TlsConnector::from(Arc::new(config)))
    }
}

impl ServiceTls {
    /// `host` is told the service as the server's name, if it is one.
    pub async fn connect<S>(&self, stream: S, host: &str) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned());
        let nameless = IpAddr::from(Ipv4Addr::LOCALHOST).into();
        self.0.connect(name.unwrap_or(nameless), stream).await
    }
}

/// Takes every certificate; signatures must fit it all the same.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use tokio::net::TcpStream;

    use super::*;
    use crate::{Authority, Names};

    /// A service with a certificate of nobody's, for other names and long over.
    async fn service() -> std::net::SocketAddr {
        let names = Names::new(["other.example".to_owned()], Vec::new());
        let authority = Authority::make("nobody", names.clone(), 1_000_000_000).unwrap();
        let checked = authority
            .issue(&names, 1_000_000_000)
            .unwrap()
            .read()
            .unwrap();
        let provider = Arc::new(ring::default_provider());
        let resolver = rustls::sign::SingleCertAndKey::from(checked.certified);
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let name = stream.get_ref().1.server_name().unwrap_or("-").to_owned();
                stream.write_all(name.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        at
    }

    #[tokio::test]
    async fn any_certificate_will_do_and_the_service_hears_the_name() {
        let at = service().await;
        for (host, heard) in [
            ("443-iabc.example.com", "443-iabc.example.com"),
            ("127.0.0.1", "-"),
            ("not a name", "-"),
        ] {
            let stream = TcpStream::connect(at).await.unwrap();
            let mut stream = ServiceTls::default().connect(stream, host).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, heard);
        }
    }

    #[tokio::test]
    async fn what_is_no_tls_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        });
        let stream = TcpStream::connect(at).await.unwrap();
        assert!(ServiceTls::default().connect(stream, "x").await.is_err());
    }
}
