//! Letting go without breaking anything, and breaking what does not let go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get as on_get;
use casemate_edge::Drained;
use futures_util::{StreamExt, stream};
use http::Response;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::{DOMAIN, ENVD, ID, LONG, Stage, eventually, get, read_all, text};

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
    stage.service(ENVD, router).await;
    (go, arrived)
}

#[tokio::test]
async fn open_requests_end_and_idle_connections_close() {
    let stage = Stage::new().await;
    let (go, mut arrived) = waiting_service(&stage).await;
    let mut client = stage.http1().await;
    let request = tokio::spawn(async move { client.send_request(get(ENVD, "/")).await });
    arrived.recv().await.unwrap();
    let mut idle = stage.http1().await;
    let mut warm = get(1, "/");
    warm.headers_mut()
        .insert("host", "localhost".parse().unwrap());
    text(idle.send_request(warm).await.unwrap()).await;

    stage.shutdown.cancel();
    eventually("the idle connection is closed", || idle.is_closed()).await;
    assert!(
        TcpStream::connect(stage.addr).await.is_err(),
        "the listener is gone"
    );
    assert!(!stage.serving.is_finished());
    go.notify_one();
    assert_eq!(text(request.await.unwrap().unwrap()).await, "done");
    let drained = tokio::time::timeout(LONG, stage.serving)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(drained, Drained::Whole);
}

#[tokio::test]
async fn connections_that_somebody_else_accepted_drain_alike() {
    let stage = Stage::new().await;
    let (go, mut arrived) = waiting_service(&stage).await;
    let (accepted, streams) = tokio::sync::mpsc::channel(1);
    let (edge, shutdown) = (stage.edge.clone(), stage.shutdown.clone());
    let serving = tokio::spawn(async move { edge.serve_accepted(streams, shutdown).await });
    let connect = async |accepted: &tokio::sync::mpsc::Sender<_>| {
        let (client, server) = tokio::io::duplex(64 * 1024);
        accepted.send((server, stage.addr)).await.unwrap();
        client
    };
    let request = format!("GET / HTTP/1.1\r\nHost: {ENVD}-{ID}.{DOMAIN}\r\n\r\n");
    let mut busy = connect(&accepted).await;
    busy.write_all(request.as_bytes()).await.unwrap();
    arrived.recv().await.unwrap();
    stage.shutdown.cancel();
    // Whose handshake ended only now.
    let mut late = connect(&accepted).await;
    late.write_all(request.as_bytes()).await.unwrap();
    arrived.recv().await.unwrap();
    drop(accepted);
    // Each of them waits, or is about to.
    tokio::spawn(async move {
        loop {
            go.notify_one();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    for mut client in [busy, late] {
        let mut answer = String::new();
        let read = tokio::time::timeout(LONG, client.read_to_string(&mut answer));
        read.await.unwrap().unwrap();
        assert!(answer.contains("done"), "{answer}");
    }
    let drained = tokio::time::timeout(LONG, serving).await.unwrap();
    assert_eq!(drained.unwrap(), Drained::Whole);
}

#[tokio::test]
async fn what_is_open_at_the_deadline_is_cut() {
    let stage = Stage::with(|config| {
        config.limits.drain_timeout = Duration::from_millis(200);
    })
    .await;
    let (_go, mut arrived) = waiting_service(&stage).await;
    let mut client = stage.http1().await;
    let request = tokio::spawn(async move { client.send_request(get(ENVD, "/")).await });
    arrived.recv().await.unwrap();
    let begun = Instant::now();
    stage.shutdown.cancel();
    let drained = tokio::time::timeout(LONG, stage.serving)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(drained, Drained::Cut(1));
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert!(request.await.unwrap().is_err());
}

/// Begins with a word, and never ends.
fn endless(content_type: &'static str) -> axum::routing::MethodRouter {
    on_get(move || async move {
        let first = stream::iter([Ok::<_, std::io::Error>("begun")]);
        let body = Body::from_stream(first.chain(stream::pending()));
        Response::builder()
            .header("content-type", content_type)
            .body(body)
            .unwrap()
    })
}

#[tokio::test]
async fn streams_are_cut_before_other_requests() {
    let stage = Stage::with(|config| {
        config.limits.drain_streams_timeout = Duration::from_millis(100);
    })
    .await;
    let (go, mut arrived) = waiting_service(&stage).await;
    let router = Router::new()
        .route("/stream", endless("application/connect+proto"))
        .route("/plain", endless("text/plain"));
    stage.service(3000, router).await;
    let mut client = stage.http1().await;
    let request = tokio::spawn(async move { client.send_request(get(ENVD, "/")).await });
    arrived.recv().await.unwrap();
    let mut bodies = Vec::new();
    for path in ["/stream", "/plain"] {
        let mut client = stage.http1().await;
        let mut body = client.send_request(get(3000, path)).await.unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        bodies.push(body);
    }

    stage.shutdown.cancel();
    let cut = tokio::time::timeout(LONG, bodies[0].frame()).await.unwrap();
    assert!(
        cut.unwrap().is_err(),
        "broken, not ended as if it were whole"
    );
    let mut plain = Box::pin(bodies[1].frame());
    assert!(futures_util::poll!(&mut plain).is_pending());
    assert!(!stage.serving.is_finished());
    drop(plain);
    drop(bodies);
    go.notify_one();
    assert_eq!(text(request.await.unwrap().unwrap()).await, "done");
    let drained = tokio::time::timeout(LONG, stage.serving).await;
    assert_eq!(drained.unwrap().unwrap(), Drained::Whole);
}

#[tokio::test]
async fn an_announced_end_closes_connections_by_their_next_answer() {
    let stage = Stage::new().await;
    let router = Router::new().fallback(|| async { "here" });
    stage.service(ENVD, router).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = stage.http1().await;
        let answer = client.send_request(get(ENVD, "/")).await.unwrap();
        assert!(!answer.headers().contains_key("connection"));
        text(answer).await;
        clients.push(client);
    }
    stage.edge.announce_end();
    let mut api = get(1, "/");
    api.headers_mut()
        .insert("host", "localhost".parse().unwrap());
    for (client, request) in clients.iter_mut().zip([get(ENVD, "/"), api]) {
        client.ready().await.unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.headers()["connection"], "close");
        text(answer).await;
        eventually("the connection is closed", || client.is_closed()).await;
    }
    // New connections are still taken.
    let answer = stage.http1().await.send_request(get(ENVD, "/")).await;
    assert_eq!(text(answer.unwrap()).await, "here");
}

#[tokio::test]
async fn an_edge_has_asked_once_its_requests_are_connected() {
    let stage = Stage::new().await;
    let (go, mut arrived) = waiting_service(&stage).await;
    let gate = stage.world.gate.lock().await;
    let mut client = stage.http1().await;
    let request = tokio::spawn(async move { client.send_request(get(ENVD, "/")).await });
    eventually("it dials", || stage.world.dials() == 1).await;
    stage.shutdown.cancel();
    let mut asked = Box::pin(stage.edge.asked());
    assert!(futures_util::poll!(&mut asked).is_pending());
    drop(gate);
    tokio::time::timeout(LONG, asked).await.unwrap();
    // Only the answer is open still.
    arrived.recv().await.unwrap();
    go.notify_one();
    assert_eq!(text(request.await.unwrap().unwrap()).await, "done");
}

#[tokio::test]
async fn a_listener_that_still_takes_is_waited_for() {
    let stage = Stage::new().await;
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(stage.raw(request).await.contains("api /"));
    let mut asked = Box::pin(stage.edge.asked());
    assert!(futures_util::poll!(&mut asked).is_pending());
    let begun = Instant::now();
    stage.shutdown.cancel();
    tokio::time::timeout(LONG, asked).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(900));
}

#[tokio::test]
async fn a_connection_that_was_accepted_may_still_ask() {
    let stage = Stage::new().await;
    let mut client = stage.connect().await;
    eventually("it is accepted", || stage.serving_connections() == 1).await;
    stage.shutdown.cancel();
    let mut asked = Box::pin(stage.edge.asked());
    assert!(futures_util::poll!(&mut asked).is_pending());
    client
        .write_all(b"GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let answer = read_all(&mut client).await;
    assert!(answer.contains("api /late"), "{answer}");
    tokio::time::timeout(LONG, asked).await.unwrap();
}
