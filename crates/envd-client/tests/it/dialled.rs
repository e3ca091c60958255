//! Connections that somebody else makes.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use envd_client::process::Command;
use envd_client::{BaseUrl, Dial, Envd, EnvdError, HttpError, Transport, Wire};

use crate::server::{Answer, Server};

/// What becomes of each attempt.
#[derive(Clone, Copy)]
enum Way {
    To(SocketAddr),
    Refused,
    Stuck,
}

struct Dialer {
    way: Way,
    dials: AtomicUsize,
}

impl Dialer {
    fn new(way: Way) -> Arc<Self> {
        let dials = AtomicUsize::new(0);
        Arc::new(Self { way, dials })
    }

    fn dials(&self) -> usize {
        self.dials.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Dial for Dialer {
    async fn dial(&self) -> io::Result<Box<dyn Wire>> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        match self.way {
            Way::To(address) => Ok(Box::new(tokio::net::TcpStream::connect(address).await?)),
            Way::Refused => Err(io::Error::other("the sandbox does not run")),
            Way::Stuck => std::future::pending().await,
        }
    }
}

fn ok() -> Answer {
    Answer {
        status: 204,
        ..Answer::default()
    }
}

#[tokio::test]
async fn calls_go_over_dialled_connections_which_are_used_again() {
    let server = Server::start(vec![("GET /health", ok()), ("GET /health", ok())]).await;
    let address = server.url.strip_prefix("http://").unwrap().parse().unwrap();
    let dialer = Dialer::new(Way::To(address));
    let envd = Envd::dialled(dialer.clone(), Some("token1")).unwrap();
    for _ in 0..2 {
        envd.health().await.unwrap();
    }
    assert_eq!((dialer.dials(), server.connections()), (1, 1));
    let seen = &server.seen()[0];
    assert_eq!(seen.headers["x-access-token"], "token1");
    // Nobody is on the way who would route by these.
    assert!(seen.headers.get("e2b-sandbox-id").is_none());
    assert!(seen.headers.get("e2b-sandbox-port").is_none());
}

#[track_caller]
fn check_no_connection(error: EnvdError, text: &str) {
    let EnvdError::Http(error) = error else {
        panic!("{error:?}");
    };
    assert!(error.is_connect(), "{error:?}");
    let mut root: &dyn Error = &error;
    while let Some(source) = root.source() {
        root = source;
    }
    assert_eq!(root.to_string(), text);
}

#[tokio::test]
async fn why_nothing_was_dialled_is_told() {
    let dialer = Dialer::new(Way::Refused);
    let envd = Envd::dialled(dialer.clone(), None).unwrap();
    let error = envd.health().await.unwrap_err();
    check_no_connection(error, "the sandbox does not run");
    let content = tokio::io::repeat(7);
    let limit = Duration::from_secs(20);
    let error = envd.post_stream("/x", content, limit).await.unwrap_err();
    check_no_connection(error, "the sandbox does not run");
    assert_eq!(dialer.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_does_not_come_back_is_given_up() {
    let envd = Envd::dialled(Dialer::new(Way::Stuck), None).unwrap();
    check_no_connection(envd.health().await.unwrap_err(), "timed out");
}

#[tokio::test]
async fn no_https_is_spoken_over_dialled_connections() {
    let dialer = Dialer::new(Way::Stuck);
    let base: BaseUrl = "https://sandbox".parse().unwrap();
    let envd = Envd::new(Transport::dialled(dialer.clone()), base, "s", None).unwrap();
    let text = "only http is spoken over connections that are dialled";
    check_no_connection(envd.health().await.unwrap_err(), text);
    assert_eq!(dialer.dials(), 0);
}

#[tokio::test]
async fn what_cannot_be_a_header_is_refused_before_anything_is_dialled() {
    let refused = Envd::dialled(Dialer::new(Way::Refused), Some("a\nb"));
    assert!(matches!(
        refused,
        Err(HttpError::Header {
            name: "x-access-token"
        })
    ));
}

/// A server that takes connections and says nothing.
async fn mute() -> Arc<Dialer> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    Dialer::new(Way::To(address))
}

#[tokio::test]
async fn an_agent_that_never_answers_is_given_up() {
    let envd = Envd::dialled(mute().await, None).unwrap();
    let asked = [
        tokio::spawn({
            let envd = envd.clone();
            async move {
                envd.process_run(Command::of_login_shell("true"))
                    .await
                    .err()
            }
        }),
        tokio::spawn({
            let envd = envd.clone();
            async move { envd.file_open("/a").await.err() }
        }),
        tokio::spawn(async move { envd.health().await.err() }),
    ];
    // The connections are made while time goes as usual.
    tokio::time::sleep(Duration::from_millis(100)).await;
    tokio::time::pause();
    for error in asked {
        let error = error.await.unwrap().unwrap();
        assert!(matches!(error, EnvdError::Http(HttpError::Timeout { .. })));
    }
}
