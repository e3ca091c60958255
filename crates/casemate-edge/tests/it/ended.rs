//! What clients see when a sandbox ends under them.

use axum::Router;
use http::Method;
use http::header::RETRY_AFTER;
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use casemate_edge::RouteTarget;

use crate::support::{ENVD, ID, LONG, Stage, eventually, get, host, read_until, sandbox, text};

/// Answers the first part and is silent then, on each connection.
async fn half_answers(stage: &Stage, port: u16, head: &'static str) -> mpsc::UnboundedReceiver<()> {
    let listener = stage.listener(port).await;
    let (begun, started) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let begun = begun.clone();
            tokio::spawn(async move {
                read_until(&mut stream, "\r\n\r\n").await;
                stream.write_all(head.as_bytes()).await.unwrap();
                begun.send(()).unwrap();
                std::future::pending::<()>().await;
            });
        }
    });
    started
}

const HALF: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";

#[tokio::test]
async fn streams_break_and_the_probe_says_not_found() {
    for port in [ENVD, 3000] {
        for h2 in [false, true] {
            let stage = Stage::new().await;
            let mut started = half_answers(&stage, port, HALF).await;
            let mut request = get(port, "/stream");
            let response = if h2 {
                *request.uri_mut() = format!("http://{}/stream", host(port)).parse().unwrap();
                stage.http2().await.send_request(request).await.unwrap()
            } else {
                stage.http1().await.send_request(request).await.unwrap()
            };
            started.recv().await.unwrap();
            let mut body = response.into_body();
            assert_eq!(
                body.frame().await.unwrap().unwrap().into_data().unwrap(),
                "half"
            );

            stage.world.end(ID);
            stage.edge.forget(&sandbox());
            let rest = tokio::time::timeout(LONG, body.collect())
                .await
                .expect("ended in time");
            assert!(rest.is_err(), "the end must not look like a good one");

            let probe = stage
                .http1()
                .await
                .send_request(get(ENVD, "/health"))
                .await
                .unwrap();
            assert_eq!(probe.status(), 502);
            assert!(text(probe).await.contains("was not found"));
            eventually("nothing is held", || stage.edge.held() == (0, 0)).await;
        }
    }
}

#[tokio::test]
async fn requests_without_an_answer_yet_are_told() {
    let stage = Stage::new().await;
    let mut started = half_answers(&stage, ENVD, "").await;
    let mut client = stage.http1().await;
    let pending = tokio::spawn(async move { client.send_request(get(ENVD, "/slow")).await });
    started.recv().await.unwrap();
    stage.world.end(ID);
    stage.edge.forget(&sandbox());
    let answer = tokio::time::timeout(LONG, pending)
        .await
        .expect("ended in time")
        .unwrap()
        .unwrap();
    assert_eq!(answer.status(), 502);
    assert!(text(answer).await.contains("was not found"));
}

/// The processes of a sandbox end before the edge is told.
#[tokio::test]
async fn the_end_is_told_although_the_agent_broke_off_before() {
    let stage = Stage::new().await;
    let listener = stage.listener(ENVD).await;
    let mut client = stage.http1().await;
    let pending = tokio::spawn(async move { client.send_request(get(ENVD, "/slow")).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    drop(stream);
    // The news is late; there is no event to wait for.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    stage.world.end(ID);
    stage.edge.forget(&sandbox());
    let answer = tokio::time::timeout(LONG, pending)
        .await
        .expect("ended in time")
        .unwrap()
        .unwrap();
    assert_eq!(answer.status(), 502);
    let body = text(answer).await;
    assert!(body.contains("was not found"), "{body}");
}

/// The processes of a sandbox that is being ended go before the edge is told, and nobody waits for
/// that on a service's port: one more look at the route says it.
#[tokio::test]
async fn the_end_is_told_of_a_service_that_broke_off() {
    let stage = Stage::new().await;
    let listener = stage.listener(3000).await;
    let mut client = stage.http1().await;
    let pending = tokio::spawn(async move { client.send_request(get(3000, "/slow")).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    stage.world.end(ID);
    drop(stream);
    let answer = pending.await.unwrap().unwrap();
    assert_eq!(answer.status(), 502);
    let body = text(answer).await;
    assert!(body.contains("was not found"), "{body}");
}

/// Its node resets what is open when it pauses, and that may be here before the news.
#[tokio::test]
async fn a_pause_is_told_of_a_service_that_broke_off() {
    let stage = Stage::new().await;
    let listener = stage.listener(3000).await;
    let mut client = stage.http1().await;
    let pending = tokio::spawn(async move { client.send_request(get(3000, "/slow")).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    stage.world.run(ID, RouteTarget::Asleep);
    drop(stream);
    let answer = pending.await.unwrap().unwrap();
    assert_eq!(answer.status(), 503);
    let body = text(answer).await;
    assert!(body.contains("ended before it answered"), "{body}");
}

#[tokio::test]
async fn the_end_is_told_of_a_port_that_is_closed_by_it() {
    let stage = Stage::new().await;
    let gate = stage.world.gate.lock().await;
    let mut client = stage.http1().await;
    let pending = tokio::spawn(async move { client.send_request(get(3000, "/")).await });
    eventually("it is dialled", || stage.world.dials() > 0).await;
    stage.world.end(ID);
    drop(gate);
    let body = text(pending.await.unwrap().unwrap()).await;
    assert!(body.contains("was not found"), "{body}");
}

/// Whether it listens no more, or never did on the connection that was waiting.
#[tokio::test]
async fn the_end_is_told_although_the_agent_cannot_be_dialled_any_more() {
    let stage = Stage::new().await;
    let mut client = stage.http1().await;
    let pending = tokio::spawn(async move { client.send_request(get(ENVD, "/slow")).await });
    eventually("it was dialled", || stage.world.dials() > 0).await;
    stage.world.end(ID);
    stage.edge.forget(&sandbox());
    let answer = tokio::time::timeout(LONG, pending)
        .await
        .expect("ended in time")
        .unwrap()
        .unwrap();
    assert!(text(answer).await.contains("was not found"));
}

/// A load balancer takes a break for a fault of the edge.
#[tokio::test]
async fn requests_to_one_that_is_only_away_are_told() {
    for (method, repeatable) in [(Method::GET, true), (Method::POST, false)] {
        for h2 in [false, true] {
            let stage = Stage::new().await;
            let mut started = half_answers(&stage, 3000, "").await;
            let mut request = get(3000, "/slow");
            *request.method_mut() = method.clone();
            let pending = if h2 {
                *request.uri_mut() = format!("http://{}/slow", host(3000)).parse().unwrap();
                let mut client = stage.http2().await;
                tokio::spawn(async move { client.send_request(request).await })
            } else {
                let mut client = stage.http1().await;
                tokio::spawn(async move { client.send_request(request).await })
            };
            started.recv().await.unwrap();
            stage.world.run(ID, RouteTarget::Transitioning);
            stage.edge.forget(&sandbox());
            let answer = tokio::time::timeout(LONG, pending)
                .await
                .expect("ended in time")
                .unwrap()
                .unwrap();
            assert_eq!(answer.status(), 503);
            assert_eq!(answer.headers().contains_key(RETRY_AFTER), repeatable);
            let body = text(answer).await;
            assert!(body.contains("ended before it answered"), "{body}");
            assert!(body.contains(ID), "{body}");
            eventually("nothing is held", || stage.edge.held() == (0, 0)).await;
        }
    }
}

/// A client that is still sending its body reads why nobody wants the rest.
#[tokio::test]
async fn an_upload_to_one_that_is_only_away_is_told() {
    let stage = Stage::new().await;
    let mut started = half_answers(&stage, 3000, "").await;
    let mut stream = stage.connect().await;
    let host = host(3000);
    let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: 100000\r\n\r\nabc");
    stream.write_all(head.as_bytes()).await.unwrap();
    started.recv().await.unwrap();
    stage.world.run(ID, RouteTarget::Transitioning);
    stage.edge.forget(&sandbox());
    let answer = read_until(&mut stream, "ended before it answered").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_too() {
    let stage = Stage::new().await;
    let listener = stage.listener(3000).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // Until every buffer on the way is full; then this waits, and fails when cut.
        while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    });
    let mut stream = stage.connect().await;
    let ask = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", host(3000));
    stream.write_all(ask.as_bytes()).await.unwrap();
    read_until(&mut stream, "xxxx").await;
    // Buffers are full once nothing has moved for a while; there is no event to wait for.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(stage.edge.held().0, 1);
    stage.world.end(ID);
    stage.edge.forget(&sandbox());
    // Though the client neither reads nor leaves.
    eventually("the connection is let go", || {
        stage.serving_connections() == 0
    })
    .await;
}

#[tokio::test]
async fn another_run_of_a_sandbox_gets_new_connections() {
    let stage = Stage::new().await;
    let router = |name: &'static str| Router::new().fallback(move || async move { name });
    stage.service(ENVD, router("first")).await;
    let ask = async || {
        let response = stage
            .http1()
            .await
            .send_request(get(ENVD, "/"))
            .await
            .unwrap();
        text(response).await
    };
    assert_eq!(ask().await, "first");
    eventually("the connection is kept", || stage.edge.held() == (1, 1)).await;
    stage.edge.forget(&sandbox());
    assert_eq!(stage.edge.held(), (0, 0));
    stage.service(ENVD, router("second")).await;
    assert_eq!(ask().await, "second");
}

#[tokio::test]
async fn neighbours_are_not_touched() {
    let stage = Stage::new().await;
    let other = "iother";
    stage.world.run(other, casemate_edge::RouteTarget::RUNNING);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    stage
        .world
        .open(other, 3000, listener.local_addr().unwrap());
    let (next, mut turns) = mpsc::unbounded_channel::<()>();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(HALF.as_bytes()).await.unwrap();
        turns.recv().await;
        stream.write_all(b"4\r\nrest\r\n0\r\n\r\n").await.unwrap();
    });
    let mut request = get(3000, "/");
    let host = format!("3000-{other}.x");
    request.headers_mut().insert("host", host.parse().unwrap());
    let response = stage.http1().await.send_request(request).await.unwrap();
    stage.world.end(ID);
    stage.edge.forget(&sandbox());
    next.send(()).unwrap();
    assert_eq!(text(response).await, "halfrest");
}
