//! More connections than there is room for.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use casemate_edge::Drained;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, client_async};

use crate::support::{LONG, Stage, eventually, get, host, read_all, read_until, text};

const LOOPBACK: &str = "127.0.0.1:1";

/// An edge with few seats, whose idle connections are spared no time.
async fn small(connections_max: usize) -> Stage {
    Stage::with(|config| {
        config.limits.connections_max = connections_max;
        config.limits.idle_spared = Duration::ZERO;
        // Only want of seats closes connections here.
        config.limits.head_timeout = LONG * 10;
    })
    .await
}

fn ask(port: u16) -> String {
    format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", host(port))
}

async fn serve_ok(stage: &Stage) {
    let router = Router::new().fallback(|| async { "ok" });
    stage.service(3000, router).await;
}

/// A connection that had its answer. Whether the edge knows already that its client has it is
/// another matter: so it is tried again.
async fn answered(stage: &Stage) -> TcpStream {
    let trying = async {
        loop {
            let mut stream = stage.connect().await;
            // A refused one may be closed before it is written to.
            let _ = stream.write_all(ask(3000).as_bytes()).await;
            let mut buf = [0; 4096];
            match stream.read(&mut buf).await {
                Ok(read) if buf[..read].starts_with(b"HTTP/1.1 200") => break stream,
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    timeout(LONG, trying)
        .await
        .expect("a new connection is served")
}

async fn is_refused(stage: &Stage) -> bool {
    let mut stream = stage.connect().await;
    read_all(&mut stream).await.starts_with("HTTP/1.1 503")
}

/// A service at port 4000 that answers when it is told to, and says when it was asked.
async fn waiting_service(stage: &Stage) -> (Arc<Notify>, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let go = Arc::new(Notify::new());
    let (here, arrived) = tokio::sync::mpsc::unbounded_channel();
    let wait = go.clone();
    let router = Router::new().fallback(move || {
        here.send(()).unwrap();
        let wait = wait.clone();
        async move {
            wait.notified().await;
            "done"
        }
    });
    stage.service(4000, router).await;
    (go, arrived)
}

#[tokio::test]
async fn silent_connections_lock_nobody_out() {
    let stage = small(4).await;
    serve_ok(&stage).await;
    let mut silent = Vec::new();
    for open in 1..=4 {
        silent.push(stage.connect().await);
        eventually("accepted", || stage.serving_connections() == open).await;
    }
    // One that has begun its head is as silent as the others.
    silent[0]
        .write_all(b"GET / HTTP/1.1\r\nhost")
        .await
        .unwrap();
    let _new = answered(&stage).await;
    // The longest idle one went; the next is still served.
    let ended = timeout(LONG, silent[0].read(&mut [0; 16])).await;
    assert!(matches!(ended.expect("closed"), Ok(0) | Err(_)));
    silent[1].write_all(ask(3000).as_bytes()).await.unwrap();
    read_until(&mut silent[1], "\r\n\r\nok").await;
}

#[tokio::test]
async fn connections_between_requests_make_room() {
    let stage = small(2).await;
    serve_ok(&stage).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(answered(&stage).await);
        assert!(stage.serving_connections() <= 2);
    }
    assert_eq!(read_all(&mut held[0]).await, "");
}

#[tokio::test]
async fn idle_connections_of_http2_make_room() {
    let stage = small(1).await;
    serve_ok(&stage).await;
    let mut request = get(3000, "/");
    *request.uri_mut() = format!("http://{}/", host(3000)).parse().unwrap();
    let mut client = stage.http2().await;
    let response = client.send_request(request).await.unwrap();
    assert_eq!(text(response).await, "ok");
    let _new = answered(&stage).await;
    eventually("closed", || client.is_closed()).await;
}

#[tokio::test]
async fn requests_and_streams_under_way_are_never_cut() {
    let stage = small(2).await;
    let (go, mut arrived) = waiting_service(&stage).await;
    let listener = stage.listener(3000).await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            socket.send(message).await.unwrap();
        }
    });
    let url = format!("ws://{}/", host(3000));
    let (mut socket, _) = client_async(url, stage.connect().await).await.unwrap();
    let mut waiting = stage.connect().await;
    waiting.write_all(ask(4000).as_bytes()).await.unwrap();
    arrived.recv().await.unwrap();
    for _ in 0..10 {
        assert!(is_refused(&stage).await);
        // Past the pause between two looks at the connections.
        tokio::time::sleep(Duration::from_millis(6)).await;
    }
    socket.send(Message::text("still here")).await.unwrap();
    let back = timeout(LONG, socket.next()).await.unwrap();
    assert_eq!(back.unwrap().unwrap(), Message::text("still here"));
    go.notify_one();
    read_until(&mut waiting, "\r\n\r\ndone").await;
}

#[tokio::test]
async fn a_new_connection_has_time_for_its_head() {
    let stage = Stage::with(|config| {
        config.limits.connections_max = 1;
        config.limits.idle_spared = LONG * 10;
    })
    .await;
    serve_ok(&stage).await;
    let mut first = stage.connect().await;
    eventually("accepted", || stage.serving_connections() == 1).await;
    assert!(is_refused(&stage).await);
    first.write_all(ask(3000).as_bytes()).await.unwrap();
    read_until(&mut first, "\r\n\r\nok").await;
}

/// Reads until the end of a body of `y`.
async fn read_to_last_y(stream: &mut DuplexStream, len: usize) {
    let mut found = 0;
    let mut buf = [0; 4096];
    while found < len {
        let read = timeout(LONG, stream.read(&mut buf)).await.unwrap().unwrap();
        assert!(read > 0, "cut after {found} of {len}");
        found += buf[..read].iter().filter(|b| **b == b'y').count();
    }
}

/// A service at port 3000 whose whole answer is at the edge once it says so.
async fn serve_large(stage: &Stage, len: usize) -> tokio::sync::oneshot::Receiver<()> {
    let (sent, all_sent) = tokio::sync::oneshot::channel();
    let listener = stage.listener(3000).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let head = format!("HTTP/1.1 200 OK\r\nx-no: no\r\ncontent-length: {len}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'y'; len]).await.unwrap();
        stream.shutdown().await.unwrap();
        // Until the edge has read all and lets go.
        read_all(&mut stream).await;
        sent.send(()).unwrap();
    });
    all_sent
}

#[tokio::test]
async fn an_answer_that_is_not_read_yet_is_under_way() {
    const LEN: usize = 7000;
    let stage = small(1).await;
    let all_sent = serve_large(&stage, LEN).await;
    // Holds 4096 bytes: the rest waits in the edge.
    let mut client = stage.stream(LOOPBACK);
    client.write_all(ask(3000).as_bytes()).await.unwrap();
    all_sent.await.unwrap();
    assert!(is_refused(&stage).await);
    read_to_last_y(&mut client, LEN).await;
}

#[tokio::test]
async fn an_answer_that_waits_for_a_window_is_under_way() {
    const LEN: usize = 7000;
    let stage = small(1).await;
    let all_sent = serve_large(&stage, LEN).await;
    let io = TokioIo::new(stage.connect().await);
    let (mut sender, conn) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1000)
        .handshake::<_, Full<Bytes>>(io)
        .await
        .unwrap();
    tokio::spawn(conn);
    let mut request = get(3000, "/");
    *request.uri_mut() = format!("http://{}/", host(3000)).parse().unwrap();
    let response = sender.send_request(request).await.unwrap();
    all_sent.await.unwrap();
    assert!(is_refused(&stage).await);
    let body = timeout(LONG, response.into_body().collect()).await;
    assert_eq!(body.unwrap().unwrap().to_bytes().len(), LEN);
}

#[tokio::test]
async fn one_address_has_its_share_only() {
    let stage = small(4).await;
    serve_ok(&stage).await;
    let (go, mut arrived) = waiting_service(&stage).await;
    let mut open = Vec::new();
    for peer in ["192.0.2.1:1", "192.0.2.1:2"] {
        let mut client = stage.stream(peer);
        client.write_all(ask(4000).as_bytes()).await.unwrap();
        arrived.recv().await.unwrap();
        open.push(client);
    }
    // Its third is refused though there is room, which others use.
    let (_client, server) = tokio::io::duplex(64);
    let peer = "192.0.2.1:3".parse().unwrap();
    let refused = stage
        .edge
        .serve_stream(server, peer, stage.shutdown.clone());
    let refused = timeout(LONG, refused).await.expect("refused at once");
    assert_eq!(refused, Drained::Cut(1));
    let mut other = stage.stream("192.0.2.2:1");
    other.write_all(ask(3000).as_bytes()).await.unwrap();
    read_to(&mut other, "\r\n\r\nok").await;
    go.notify_waiters();
    for client in &mut open {
        read_to(client, "\r\n\r\ndone").await;
    }
}

#[tokio::test]
async fn one_address_makes_room_for_itself_among_its_own() {
    let stage = small(4).await;
    serve_ok(&stage).await;
    let mut other = stage.stream("192.0.2.2:1");
    eventually("served", || stage.serving_connections() == 1).await;
    let mut silent = stage.stream("192.0.2.1:1");
    eventually("served", || stage.serving_connections() == 2).await;
    let _second = stage.stream("192.0.2.1:2");
    eventually("served", || stage.serving_connections() == 3).await;
    let mut third = stage.stream("192.0.2.1:3");
    third.write_all(ask(3000).as_bytes()).await.unwrap();
    read_to(&mut third, "\r\n\r\nok").await;
    let ended = timeout(LONG, silent.read(&mut [0; 16])).await;
    assert!(matches!(ended.expect("closed"), Ok(0) | Err(_)));
    other.write_all(ask(3000).as_bytes()).await.unwrap();
    read_to(&mut other, "\r\n\r\nok").await;
}

async fn read_to(stream: &mut DuplexStream, needle: &str) {
    let mut out = String::new();
    let mut buf = [0; 4096];
    while !out.contains(needle) {
        let read = timeout(LONG, stream.read(&mut buf)).await.unwrap().unwrap();
        assert!(read > 0, "closed before {needle:?}: {out:?}");
        out.push_str(&String::from_utf8_lossy(&buf[..read]));
    }
}
