//! TLS, and the operator's proxy.

use std::fs;
use std::sync::{Arc, Mutex};

use casemate_images::{ConfigError, Credentials, ImageError, Images, ProxyConfig, RegistryConfig};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::files::{config, read, simple};
use crate::server::{Server, as_registry};

const ANYONE: Credentials = Credentials::Anonymous;

/// A registry with TLS, and the PEM of who vouches for it.
async fn with_tls() -> (Server, String) {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let (acceptor, files) = (TlsAcceptor::from(Arc::new(tls)), simple(1000));
    let handler = move |asked: &_| as_registry(&files, asked);
    let through = move |stream| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(stream).await }
    };
    (
        Server::start_with(handler, through).await,
        signed.cert.pem(),
    )
}

#[tokio::test]
async fn authorities_are_trusted_for_their_host() {
    let (server, pem) = with_tls().await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, pem).unwrap();
    let mut config = config(dir.path(), &[]);
    let reference = format!("{}/a", server.host);
    let mut registry = RegistryConfig::default();
    config
        .registries
        .insert(server.host.clone(), registry.clone());
    let images = Images::open(config.clone()).unwrap();
    let error = images.resolve(&reference, &ANYONE, "").await.unwrap_err();
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");
    assert_eq!(server.asked().len(), 0, "nobody vouches for it");

    registry.ca_files = vec![ca.clone()];
    config.registries.insert(server.host.clone(), registry);
    let images = Images::open(config.clone()).unwrap();
    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    read(&images, &image, 0).await.unwrap();
    let host = server.asked()[0].header("host").map(str::to_string);
    assert_eq!(host, Some(server.host.clone()));

    fs::write(&ca, "nothing").unwrap();
    let error = Images::open(config.clone()).err();
    assert!(
        matches!(error, Some(ConfigError::NoAuthority(_))),
        "{error:?}"
    );
    fs::remove_file(&ca).unwrap();
    let error = Images::open(config).err();
    assert!(
        matches!(error, Some(ConfigError::CaFile { .. })),
        "{error:?}"
    );
}

/// A proxy that connects everyone to one address, and what it was asked for.
async fn proxy(to: String, answer: &'static str) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (to, seen) = (to.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                seen.lock().unwrap().push(String::from_utf8(head).unwrap());
                stream.write_all(answer.as_bytes()).await?;
                let mut beyond = TcpStream::connect(to).await?;
                copy_bidirectional(&mut stream, &mut beyond).await
            });
        }
    });
    (port, heads)
}

fn proxied(port: u16, resolves_names: bool) -> Option<ProxyConfig> {
    Some(ProxyConfig {
        host: "127.0.0.1".into(),
        port,
        credentials: Some(("user".into(), "secret".into())),
        bypass: Vec::new(),
        resolves_names,
    })
}

#[tokio::test]
async fn https_goes_through_the_proxy() {
    let (server, pem) = with_tls().await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, pem).unwrap();
    let (port, heads) = proxy(server.host.clone(), "HTTP/1.1 200 OK\r\n\r\n").await;
    let mut config = config(dir.path(), &[]);
    config.proxy = proxied(port, false);
    let registry = RegistryConfig {
        ca_files: vec![ca],
        ..RegistryConfig::default()
    };
    config.registries.insert(server.host.clone(), registry);
    let images = Images::open(config.clone()).unwrap();
    let reference = format!("{}/a", server.host);
    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    read(&images, &image, 0).await.unwrap();
    {
        let heads = heads.lock().unwrap();
        assert_eq!(heads.len(), 3);
        let head = heads[0].to_ascii_lowercase();
        assert!(
            head.starts_with(&format!("connect {} http/1.1\r\n", server.host)),
            "{head}"
        );
        let login = "proxy-authorization: basic dxnlcjpzzwnyzxq=\r\n";
        assert!(head.contains(login), "{head}");
        assert!(!format!("{config:?}").contains("secret"));
    }
    // By address, or by name where the proxy keeps what is closed: never to a closed address.
    let images_by_name = {
        config.proxy = proxied(port, true);
        Images::open(config.clone()).unwrap()
    };
    for images in [&images, &images_by_name] {
        let error = images.resolve("10.0.0.1/a", &ANYONE, "").await.unwrap_err();
        let ImageError::Unreachable { cause, .. } = error else {
            panic!("{error}");
        };
        assert!(cause.is_closed(), "{cause}");
    }
    assert_eq!(heads.lock().unwrap().len(), 3);
    let unresolved = images_by_name
        .resolve("no-such-name.invalid/a", &ANYONE, "")
        .await;
    assert!(matches!(unresolved, Err(ImageError::Unreachable { .. })));
    let heads = heads.lock().unwrap();
    assert!(
        heads[3].starts_with("CONNECT no-such-name.invalid:443 "),
        "{}",
        heads[3]
    );
}

#[tokio::test]
async fn a_proxy_that_refuses_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let answer = "HTTP/1.1 407 no\r\ncontent-length: 0\r\n\r\n";
    let (port, heads) = proxy("127.0.0.1:1".into(), answer).await;
    let mut config = config(dir.path(), &[]);
    config.proxy = proxied(port, true);
    let images = Images::open(config.clone()).unwrap();
    let resolved = images.resolve("registry.example/a", &ANYONE, "").await;
    assert!(matches!(resolved, Err(ImageError::Unreachable { .. })));
    assert_eq!(heads.lock().unwrap().len(), 1);
    if let Some(proxy) = &mut config.proxy {
        proxy.credentials = Some(("a:b".into(), "c".into()));
    }
    let error = Images::open(config).err();
    assert!(
        matches!(error, Some(ConfigError::ProxyCredentials)),
        "{error:?}"
    );
}
