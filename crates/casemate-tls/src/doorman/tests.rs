use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::*;
use crate::{Authority, Names};

/// A doorman whose clients hear back what they say.
struct Door {
    at: SocketAddr,
    current: Arc<Current>,
    authority: Authority,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

fn names() -> Names {
    Names::new(
        ["casemate.localhost".to_owned(), "localhost".to_owned()],
        vec![[127, 0, 0, 1].into()],
    )
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

impl Door {
    async fn open(limits: DoormanLimits) -> Self {
        let authority = Authority::make("Casemate test", names(), now()).unwrap();
        let current = Arc::new(Current::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let doorman = Doorman::new(Arc::clone(&current), limits);
        let (greeted, mut streams) = mpsc::channel(1);
        let stop = shutdown.clone();
        let ended = tokio::spawn(async move {
            tokio::spawn(async move {
                while let Some((stream, _)) = streams.recv().await {
                    tokio::spawn(echo(stream));
                }
            });
            doorman.serve(listener, greeted, stop).await;
        });
        let door = Self {
            at,
            current,
            authority,
            shutdown,
            ended,
        };
        door.renew();
        door
    }

    fn renew(&self) {
        let pair = self.authority.issue(&names(), now()).unwrap();
        self.current.show(pair.check(now()).unwrap());
    }

    async fn connect(
        &self,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> io::Result<ClientStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.authority.certificate().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TcpStream::connect(self.at).await?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

async fn echo(mut stream: Greeted) -> io::Result<()> {
    let mut bytes = [0; 64];
    loop {
        let read = stream.read(&mut bytes).await?;
        if read == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&bytes[..read]).await?;
    }
}

async fn is_heard(stream: &mut ClientStream<TcpStream>) -> bool {
    let mut back = [0; 4];
    stream.write_all(b"ping").await.is_ok() && stream.read_exact(&mut back).await.is_ok()
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

#[tokio::test]
async fn versions_names_and_protocols_are_agreed_on() {
    let door = Door::open(DoormanLimits::default()).await;
    for version in BOTH {
        for (offered, expected) in [
            (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
            (&["http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let host = "3000-abc.casemate.localhost";
            let mut stream = door.connect(host, &[version], offered).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), expected);
            assert!(is_heard(&mut stream).await);
        }
    }
    for host in ["casemate.localhost", "localhost", "127.0.0.1"] {
        assert!(door.connect(host, BOTH, &[]).await.is_ok(), "{host}");
    }
    // Shown all the same, and refused by the client.
    let error = door.connect("other.example", BOTH, &[]).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn another_certificate_is_for_the_connections_that_follow() {
    let door = Door::open(DoormanLimits::default()).await;
    let seen = |stream: &ClientStream<TcpStream>| {
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        shown[0].as_ref().to_vec()
    };
    let host = "casemate.localhost";
    let mut first = door.connect(host, BOTH, &[]).await.unwrap();
    door.renew();
    let second = door.connect(host, BOTH, &[]).await.unwrap();
    assert_ne!(seen(&first), seen(&second));
    assert!(is_heard(&mut first).await);
}

#[tokio::test]
async fn who_speaks_http_is_told() {
    let door = Door::open(DoormanLimits::default()).await;
    let mut stream = TcpStream::connect(door.at).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: casemate.localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    // The client ends last, as honest ones do.
    let mut bytes = vec![0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
        answer.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())));
}

#[tokio::test]
async fn a_flood_of_half_open_handshakes_locks_nobody_out() {
    let limits = DoormanLimits {
        handshakes_max: 8,
        handshake_timeout: Duration::from_millis(500),
    };
    let door = Door::open(limits).await;
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(TcpStream::connect(door.at).await.unwrap());
    }
    let mut stream = door.connect("localhost.example", BOTH, &[]).await;
    assert!(stream.is_err());
    stream = door.connect("casemate.localhost", BOTH, &[]).await;
    assert!(is_heard(&mut stream.unwrap()).await);
    // Those that are left end in time.
    for mut stream in open {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut byte)).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))));
    }
}

#[tokio::test]
async fn a_handshake_that_began_before_the_end_is_finished() {
    let door = Door::open(DoormanLimits::default()).await;
    let mut before = door.connect("casemate.localhost", BOTH, &[]).await.unwrap();
    door.shutdown.cancel();
    door.ended.await.unwrap();
    assert!(is_heard(&mut before).await);
    assert!(TcpStream::connect(door.at).await.is_err());
}
