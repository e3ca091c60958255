//! Connections that stop being HTTP.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::support::{ID, LONG, Stage, host, read_all, read_until, sandbox};

/// Sends every message back.
fn echo_messages(listener: TcpListener) {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() || message.is_binary() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
}

#[tokio::test]
async fn websockets_pass_on_http1() {
    let stage = Stage::new().await;
    echo_messages(stage.listener(3000).await);
    let url = format!("ws://{}/socket", host(3000));
    let (mut socket, response) = client_async(url, stage.connect().await).await.unwrap();
    assert_eq!(response.status(), 101);
    for text in ["hello", "again"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    let large = Message::binary(vec![7u8; 3 * 1024 * 1024]);
    socket.send(large.clone()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), large);
    socket.close(None).await.unwrap();
    let closed = tokio::time::timeout(LONG, async {
        while let Some(Ok(message)) = socket.next().await {
            assert!(message.is_close());
        }
    });
    closed.await.expect("closed in time");
}

#[tokio::test]
async fn websockets_pass_by_routing_header() {
    let stage = Stage::new().await;
    echo_messages(stage.listener(3000).await);
    let mut stream = stage.connect().await;
    let ask = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\ne2b-sandbox-id: {ID}\r\ne2b-sandbox-port: 3000\r\n\
         connection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n")
        .await
        .to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    assert!(
        answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{answer}"
    );
    assert!(answer.contains("upgrade: websocket"), "{answer}");
}

#[tokio::test]
async fn websockets_pass_on_http2() {
    let stage = Stage::new().await;
    echo_messages(stage.listener(3000).await);
    let io = TokioIo::new(stage.connect().await);
    let (mut sender, conn) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake::<_, Empty<Bytes>>(io)
        .await
        .unwrap();
    tokio::spawn(conn);
    let request = || {
        Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://{}/socket", host(3000)))
            .header("sec-websocket-version", "13")
            .extension(Protocol::from_static("websocket"))
            .body(Empty::new())
            .unwrap()
    };
    // A client may ask only once the server's settings have come.
    let response = tokio::time::timeout(LONG, async {
        loop {
            match sender.send_request(request()).await {
                Ok(response) => break response,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let mut response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::text("hello")
    );
}

#[tokio::test]
async fn each_direction_of_an_upgraded_connection_ends_by_itself() {
    let stage = Stage::new().await;
    let listener = stage.listener(3000).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n")
            .await
            .to_ascii_lowercase();
        assert!(
            head.contains("upgrade: raw") && head.contains("connection: upgrade"),
            "{head}"
        );
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // All that the client sends, then the answer to it.
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        stream
            .write_all(all.to_uppercase().as_bytes())
            .await
            .unwrap();
    });
    let mut stream = stage.connect().await;
    let ask = format!(
        "GET / HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n",
        host(3000)
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, "QUESTION");
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let stage = Stage::new().await;
    stage.service(3000, axum::Router::new()).await;
    let url = format!("ws://{}/socket", host(3000));
    let error = client_async(url, stage.connect().await).await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}

#[tokio::test]
async fn h2c_by_upgrade_is_answered_in_http1() {
    let stage = Stage::new().await;
    let router = axum::Router::new().fallback(|headers: http::HeaderMap| async move {
        assert!(!headers.contains_key("upgrade") && !headers.contains_key("http2-settings"));
        "plain"
    });
    stage.service(3000, router).await;
    let mut stream = stage.connect().await;
    let ask = format!(
        "GET / HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n\
         http2-settings: AAMAAABkAAQAAP__\r\n\r\n",
        host(3000)
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "plain").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_service_that_switches_unasked_is_a_broken_one() {
    let stage = Stage::new().await;
    let listener = stage.listener(3000).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        read_all(&mut stream).await;
    });
    let response = stage
        .http1()
        .await
        .send_request(crate::support::get(3000, "/"))
        .await
        .unwrap();
    assert_eq!(response.status(), 502);
}

#[tokio::test]
async fn upgraded_connections_end_with_their_sandbox() {
    let stage = Stage::new().await;
    echo_messages(stage.listener(3000).await);
    let url = format!("ws://{}/socket", host(3000));
    let (mut socket, _) = client_async(url, stage.connect().await).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    socket.next().await.unwrap().unwrap();
    stage.world.end(ID);
    stage.edge.forget(&sandbox());
    let next = tokio::time::timeout(LONG, socket.next())
        .await
        .expect("ended in time");
    assert!(matches!(next, None | Some(Err(_))), "{next:?}");
    crate::support::eventually("nothing is held", || stage.edge.held() == (0, 0)).await;
}
