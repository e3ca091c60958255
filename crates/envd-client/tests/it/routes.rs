//! Plain routes: JSON that is read, content that is streamed.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use envd_client::{Envd, EnvdError, HttpError, RpcCode, Transport};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;

use crate::agent::{agent, until};
use crate::server::{Answer, Server};

const GET: &str = "GET /startup?wait_ms=5";
const POST: &str = "POST /build/layer?a=%20b";
const TARGET: &str = "/build/layer?a=%20b";
const LIMIT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

#[derive(Debug, PartialEq, Deserialize)]
struct Startup {
    state: String,
}

/// Content that breaks off with this error instead of ending; `None`: that never goes on.
struct Broken(Option<&'static str>);

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0 {
            Some(text) => Poll::Ready(Err(io::Error::other(text))),
            None => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn an_answer_in_json_is_read() {
    let server = Server::start(vec![(GET, Answer::status(200, r#"{"state":"ready"}"#))]).await;
    let startup: Startup = agent(&server)
        .get_json("/startup?wait_ms=5", LIMIT)
        .await
        .unwrap();
    assert_eq!(startup.state, "ready");
    assert_eq!(server.seen()[0].headers["x-access-token"], "token1");
}

#[tokio::test]
async fn an_answer_that_is_not_the_json_is_an_error_of_its_own_kind() {
    let hanging = Answer {
        hangs: true,
        ..Answer::status(200, "{")
    };
    let server = Server::start(vec![
        (GET, Answer::status(200, "[1]")),
        (GET, Answer::status(401, r#"{"code":401,"message":"no"}"#)),
        (GET, Answer::ok([vec![b' '; 65537]])),
        (GET, hanging),
    ])
    .await;
    let envd = agent(&server);
    let mut errors = Vec::new();
    for limit in [LIMIT, LIMIT, LIMIT, SHORT] {
        let answer = envd.get_json::<Startup>("/startup?wait_ms=5", limit).await;
        errors.push(answer.unwrap_err());
    }
    assert!(matches!(
        &errors[..],
        [
            EnvdError::UnreadableAnswer { .. },
            EnvdError::Refused {
                code: RpcCode::Unauthenticated,
                ..
            },
            EnvdError::Http(HttpError::TooLong { .. }),
            EnvdError::Http(HttpError::Timeout { after: SHORT, .. }),
        ]
    ));
}

#[tokio::test]
async fn content_arrives_whole_and_any_answer_to_it_is_handed_out() {
    let full = r#"{"code":507,"message":"disk full at usr/a"}"#;
    let server = Server::start(vec![
        (POST, Answer::status(200, r#"{"entries":1}"#)),
        (POST, Answer::status(507, full)),
    ])
    .await;
    let envd = agent(&server);
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let answer = envd.post_stream(TARGET, &content[..], LIMIT).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &br#"{"entries":1}"#[..])
    );
    let answer = envd.post_stream(TARGET, &b""[..], LIMIT).await.unwrap();
    assert_eq!(answer.status.as_u16(), 507);
    assert!(
        EnvdError::refused(&answer)
            .to_string()
            .starts_with("disk full at usr/a")
    );
    let seen = server.seen();
    assert!(seen[0].body == content && seen[1].body.is_empty());
    assert_eq!(seen[0].headers["x-access-token"], "token1");
    assert_eq!(seen[0].headers["content-type"], "application/octet-stream");
    assert_eq!(server.connections(), 1);
}

/// Requests whose bodies broke off.
fn cut_off(server: &Server) -> usize {
    server.cut_off.load(Ordering::Relaxed)
}

#[tokio::test]
async fn content_that_cannot_be_read_never_looks_like_all_of_it() {
    let server = Server::start(vec![(POST, Answer::status(200, "{}"))]).await;
    // More than waits here, so that the request is on its way when it breaks.
    let content = vec![7; 4 << 20];
    let content = content.as_slice().chain(Broken(Some("wrong digest")));
    let error = agent(&server)
        .post_stream(TARGET, content, LIMIT)
        .await
        .unwrap_err();
    match error {
        EnvdError::Http(HttpError::Content { source, .. }) => {
            assert_eq!(source.to_string(), "wrong digest");
        }
        other => panic!("{other:?}"),
    }
    until("the cut", || cut_off(&server) == 1).await;
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_call_that_is_given_up_never_looks_like_all_of_it() {
    let server = Server::start(vec![(POST, Answer::status(200, "{}"))]).await;
    let envd = agent(&server);
    let stuck = || (&b"some"[..]).chain(Broken(None));
    let error = envd.post_stream(TARGET, stuck(), SHORT).await.unwrap_err();
    assert!(matches!(
        error,
        EnvdError::Http(HttpError::Timeout { after: SHORT, .. })
    ));
    until("the cut", || cut_off(&server) == 1).await;
    let call = tokio::spawn(async move { envd.post_stream(TARGET, stuck(), LIMIT).await });
    until("the second call", || server.connections() == 2).await;
    call.abort();
    until("the second cut", || cut_off(&server) == 2).await;
    assert!(server.seen().is_empty());
}

/// A server that says no after the first bytes and then reads on for as long as anything comes.
async fn refusing() -> (Envd, tokio::task::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let reading = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut read = stream.read(&mut buffer).await.unwrap();
        let no = b"HTTP/1.1 507 Insufficient Storage\r\ncontent-length: 4\r\n\r\nfull";
        stream.write_all(no).await.unwrap();
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return read,
                Ok(more) => read += more,
            }
        }
    });
    let envd = Envd::new(Transport::new(), base.parse().unwrap(), "s", None).unwrap();
    (envd, reading)
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_content_ends_the_sending() {
    let (envd, reading) = refusing().await;
    let endless = tokio::io::repeat(7);
    let answer = envd.post_stream(TARGET, endless, LIMIT).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.body),
        (507, Bytes::from_static(b"full"))
    );
    // The connection is closed, though its reader would have taken more.
    tokio::time::timeout(LIMIT, reading).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_receiver_that_does_not_read_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let envd = Envd::new(Transport::new(), base.parse().unwrap(), "s", None).unwrap();
    let error = envd
        .post_stream(TARGET, tokio::io::repeat(7), SHORT)
        .await
        .unwrap_err();
    assert!(matches!(error, EnvdError::Http(HttpError::Timeout { .. })));
}
