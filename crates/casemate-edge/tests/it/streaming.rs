//! Bytes pass when they come, not when they are all there.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get as on_get, post};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::support::{LONG, Stage, get, host, read_until};

type Frames = mpsc::UnboundedReceiver<Frame<Bytes>>;

/// A body that is written by hand.
fn handwritten() -> (
    mpsc::UnboundedSender<Frame<Bytes>>,
    impl http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
) {
    let (tx, rx) = mpsc::unbounded_channel();
    let frames = stream::unfold(rx, |mut rx: Frames| async move {
        rx.recv().await.map(|frame| (Ok(frame), rx))
    });
    (tx, StreamBody::new(Box::pin(frames)))
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

async fn next_data(body: &mut (impl http_body::Body<Data = Bytes> + Unpin)) -> Option<Bytes> {
    loop {
        let frame = tokio::time::timeout(LONG, body.frame())
            .await
            .expect("a frame in time");
        let data = frame?.ok().expect("a good frame").into_data();
        // HTTP/2 may end a stream with an empty frame.
        match data.expect("data") {
            empty if empty.is_empty() => {}
            data => return Some(data),
        }
    }
}

/// Echoes each piece as it comes.
fn echo() -> Router {
    Router::new().route("/echo", post(|body: Body| async move { body }))
}

async fn answers_flow_while_the_request_is_open(h2: bool) {
    let stage = Stage::new().await;
    stage.service(3000, echo()).await;
    let (tx, body) = handwritten();
    let request = Request::post(format!("http://{}/echo", host(3000)))
        .header("host", host(3000))
        .body(body)
        .unwrap();
    let io = TokioIo::new(stage.connect().await);
    tx.send(data("one")).unwrap();
    let response = if h2 {
        let (mut sender, conn) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap();
        tokio::spawn(conn);
        let response = sender.send_request(request).await.unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(LONG).await;
            drop(sender);
        });
        response
    } else {
        let (mut sender, conn) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(conn);
        sender.send_request(request).await.unwrap()
    };
    // Each piece comes back before the next is sent: nothing waits for the end.
    let mut answer = response.into_body();
    assert_eq!(next_data(&mut answer).await.unwrap(), "one");
    for piece in ["two", "three"] {
        tx.send(data(piece)).unwrap();
        assert_eq!(next_data(&mut answer).await.unwrap(), piece);
    }
    drop(tx);
    assert_eq!(next_data(&mut answer).await, None);
}

#[tokio::test]
async fn both_ways_at_once_on_http1() {
    answers_flow_while_the_request_is_open(false).await;
}

#[tokio::test]
async fn both_ways_at_once_on_http2() {
    answers_flow_while_the_request_is_open(true).await;
}

#[tokio::test]
async fn server_sent_events_pass_one_by_one() {
    let stage = Stage::new().await;
    let listener = stage.listener(3000).await;
    let (next, mut turns) = mpsc::unbounded_channel::<&'static str>();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        while let Some(event) = turns.recv().await {
            stream.write_all(event.as_bytes()).await.unwrap();
        }
    });
    let response = stage
        .http1()
        .await
        .send_request(get(3000, "/events"))
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        next.send(event).unwrap();
        assert_eq!(next_data(&mut body).await.unwrap(), event);
    }
    drop(next);
    assert_eq!(next_data(&mut body).await, None);
}

/// Answers with a trailer.
fn with_trailer() -> Router {
    Router::new().route(
        "/t",
        on_get(|headers: HeaderMap| async move {
            assert_eq!(headers["te"], "trailers");
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("42"));
            let frames = vec![
                Ok::<_, Infallible>(data("body")),
                Ok(Frame::trailers(trailers)),
            ];
            let body = Body::new(StreamBody::new(stream::iter(frames)));
            ([("trailer", "x-sum")], body)
        }),
    )
}

#[tokio::test]
async fn trailers_of_answers_pass() {
    let stage = Stage::new().await;
    stage.service(3000, with_trailer()).await;
    let mut request = get(3000, "/t");
    request
        .headers_mut()
        .insert("te", HeaderValue::from_static("trailers"));
    let response = stage.http1().await.send_request(request).await.unwrap();
    assert_eq!(response.headers()["trailer"], "x-sum");
    let whole = response.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["x-sum"], "42");

    let mut request = get(3000, "/t");
    request
        .headers_mut()
        .insert("te", HeaderValue::from_static("trailers"));
    *request.uri_mut() = format!("http://{}/t", host(3000)).parse().unwrap();
    request.headers_mut().remove("host");
    let response = stage.http2().await.send_request(request).await.unwrap();
    let whole = response.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["x-sum"], "42");
}

#[tokio::test]
async fn trailers_of_requests_pass() {
    let stage = Stage::new().await;
    stage
        .service(
            3000,
            Router::new().route(
                "/t",
                post(|body: Body| async move {
                    let whole = body.collect().await.unwrap();
                    let trailers = whole.trailers().unwrap().clone();
                    trailers["x-sum"].to_str().unwrap().to_owned()
                }),
            ),
        )
        .await;
    let answer = stage
        .raw(format!(
            "POST /t HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\
             connection: close\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 43\r\n\r\n",
            host(3000)
        ))
        .await;
    assert!(answer.ends_with("43"), "{answer}");
}

#[tokio::test]
async fn an_early_answer_does_not_stop_the_upload() {
    let stage = Stage::new().await;
    let listener = stage.listener(3000).await;
    let reading = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "first").await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly";
        stream.write_all(answer).await.unwrap();
        read_until(&mut stream, "last").await;
    });
    let mut stream = stage.connect().await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {}\r\ncontent-length: 200009\r\n\r\nfirst",
        host(3000)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "early").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // More than the bound on heads: bytes of a body never count as one.
    stream.write_all(&vec![b'x'; 200_000]).await.unwrap();
    stream.write_all(b"last").await.unwrap();
    reading.await.unwrap();
    // And the connection is good for another request.
    let next = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", host(3001));
    stream.write_all(next.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "not open").await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}

#[tokio::test]
async fn an_upload_goes_on_while_the_answer_is_not_read() {
    // More than all buffers on one way hold.
    const LEN: usize = 32 * 1024 * 1024;
    let stage = Stage::new().await;
    let listener = stage.listener(3000).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let (mut reading, mut writing) = stream.into_split();
        tokio::spawn(async move {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LEN}\r\n\r\n");
            writing.write_all(head.as_bytes()).await.unwrap();
            writing.write_all(&vec![b'y'; LEN]).await.unwrap();
            std::future::pending::<()>().await;
        });
        tokio::io::copy(&mut reading, &mut tokio::io::sink()).await
    });
    let mut stream = stage.connect().await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {}\r\ncontent-length: {LEN}\r\nconnection: close\r\n\r\n",
        host(3000)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let body = vec![b'x'; LEN];
    let upload = tokio::time::timeout(LONG, stream.write_all(&body)).await;
    upload.expect("the upload goes on").unwrap();
    let answer = crate::support::read_all(&mut stream).await;
    assert!(answer.len() > LEN);
}

#[tokio::test]
async fn a_client_that_hangs_up_is_noticed_by_the_service_at_once() {
    for h2 in [false, true] {
        for port in [3000, crate::support::ENVD] {
            let stage = Stage::new().await;
            let listener = stage.listener(port).await;
            let (begun, mut started) = mpsc::unbounded_channel();
            let service = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                read_until(&mut stream, "\r\n\r\n").await;
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n";
                stream.write_all(head.as_bytes()).await.unwrap();
                begun.send(()).unwrap();
                // Silent from here on: only the hang-up can wake it.
                let mut buf = [0; 16];
                let read = tokio::io::AsyncReadExt::read(&mut stream, &mut buf).await;
                assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
            });
            let mut request = get(port, "/");
            let response = if h2 {
                *request.uri_mut() = format!("http://{}/", host(port)).parse().unwrap();
                let mut sender = stage.http2().await;
                sender.send_request(request).await.unwrap()
            } else {
                stage.http1().await.send_request(request).await.unwrap()
            };
            started.recv().await.unwrap();
            drop(response);
            tokio::time::timeout(Duration::from_secs(1), service)
                .await
                .expect("noticed within a second")
                .unwrap();
        }
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_before_the_answer_is_noticed_too() {
    let stage = Stage::new().await;
    let listener = stage.listener(3000).await;
    let (begun, mut started) = mpsc::unbounded_channel();
    let service = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        begun.send(()).unwrap();
        let mut buf = [0; 16];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut buf).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    });
    let mut stream = stage.connect().await;
    let head = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", host(3000));
    stream.write_all(head.as_bytes()).await.unwrap();
    started.recv().await.unwrap();
    drop(stream);
    tokio::time::timeout(Duration::from_secs(1), service)
        .await
        .expect("noticed within a second")
        .unwrap();
}

#[tokio::test]
async fn a_service_that_breaks_off_breaks_the_clients_answer() {
    let stage = Stage::new().await;
    let listener = stage.listener(3000).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
    });
    let response = stage
        .http1()
        .await
        .send_request(get(3000, "/"))
        .await
        .unwrap();
    assert!(response.into_body().collect().await.is_err());
}

/// A request whose body comes in one chunk, without the chunk that ends it.
fn begun_chunked(port: u16) -> String {
    format!(
        "POST / HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        host(port)
    )
}

/// Answers without a look at the rest of a request, and closes without a word: as services do when
/// they refuse, and agents that were started by an older version.
async fn answers_early(stage: &Stage, port: u16) {
    let router = Router::new().fallback(|| async { "early" });
    stage.service(port, router).await;
}

#[tokio::test]
async fn a_connection_is_used_again_when_the_end_of_a_body_comes_late() {
    let stage = Stage::new().await;
    for port in [3000, crate::support::ENVD] {
        answers_early(&stage, port).await;
        let next = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", host(port));
        let mut stream = stage.connect().await;
        stream.set_nodelay(true).unwrap();
        for round in 0..300 {
            stream
                .write_all(begun_chunked(port).as_bytes())
                .await
                .unwrap();
            // In a packet of its own before or after the answer, or with the next request.
            match round % 4 {
                0 => stream.write_all(b"0\r\n\r\n").await.unwrap(),
                1 => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    stream.write_all(b"0\r\n\r\n").await.unwrap();
                }
                _ => {}
            }
            let answer = read_until(&mut stream, "early").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{round}: {answer}");
            assert!(!answer.contains("connection: close"), "{round}: {answer}");
            match round % 4 {
                2 => stream.write_all(b"0\r\n\r\n").await.unwrap(),
                3 => {
                    let glued = format!("0\r\n\r\n{next}");
                    stream.write_all(glued.as_bytes()).await.unwrap();
                }
                _ => {}
            }
            if round % 4 != 3 {
                stream.write_all(next.as_bytes()).await.unwrap();
            }
            let answer = read_until(&mut stream, "\r\n\r\nearly").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{round}: {answer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_body_is_waited_for_to_a_bound() {
    let stage = Stage::new().await;
    answers_early(&stage, 3000).await;
    for (late, lives) in [(9, true), (11, false)] {
        let mut client = stage.stream("192.0.2.1:1");
        client
            .write_all(begun_chunked(3000).as_bytes())
            .await
            .unwrap();
        let mut answer = vec![0; 4096];
        let count = client.read(&mut answer).await.unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200"));
        tokio::time::sleep(Duration::from_secs(late)).await;
        let next = format!("0\r\n\r\nGET / HTTP/1.1\r\nhost: {}\r\n\r\n", host(3001));
        let sent = client.write_all(next.as_bytes()).await;
        let count = client.read(&mut answer).await.unwrap_or_default();
        assert_eq!(sent.is_ok() && count > 0, lives, "{late} {count}");
    }
}
