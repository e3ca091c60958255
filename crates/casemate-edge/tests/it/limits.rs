//! What happens at each bound.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::{DOMAIN, ENVD, ID, LONG, Stage, get, host, read_all, read_until, text};

#[tokio::test]
async fn heads_that_are_too_large_are_431_with_a_body() {
    let stage = Stage::new().await;
    stage
        .service(ENVD, Router::new().fallback(|| async { "ok" }))
        .await;
    for size in [
        60 * 1024,
        66 * 1024,
        200 * 1024,
        1024 * 1024,
        4 * 1024 * 1024,
    ] {
        for target in [host(ENVD), format!("api.{DOMAIN}")] {
            let begun = Instant::now();
            let answer = stage
                .raw(format!(
                    "GET / HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\nx-large: {}\r\n\r\n",
                    "x".repeat(size)
                ))
                .await;
            assert!(begun.elapsed() < Duration::from_secs(5), "{size}: a hang");
            if size < 64 * 1024 {
                assert!(answer.starts_with("HTTP/1.1 200"), "{size}: {answer:.300}");
            } else {
                assert!(answer.starts_with("HTTP/1.1 431"), "{size}: {answer:.300}");
                assert!(answer.contains(r#""code":431"#), "{size}: {answer:.300}");
                assert!(answer.contains("application/json"), "{size}: {answer:.300}");
            }
        }
    }
}

#[tokio::test]
async fn an_endless_head_is_refused_after_the_bound() {
    let stage = Stage::new().await;
    let mut stream = stage.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx: ")
        .await
        .unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let endless =
        tokio::spawn(async move { while writing.write_all(&[b'x'; 8192]).await.is_ok() {} });
    let mut out = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut out);
    let _ = tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .expect("closed in time");
    assert!(String::from_utf8_lossy(&out).starts_with("HTTP/1.1 431"));
    drop(reading);
    tokio::time::timeout(Duration::from_secs(10), endless)
        .await
        .unwrap()
        .unwrap();
}

/// Reads the head of an answer without a body.
async fn read_head(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LONG, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_body_that_comes_with_its_head_does_not_count_as_one() {
    let stage = Stage::new().await;
    let takes = |_: bytes::Bytes| async { http::StatusCode::NO_CONTENT };
    stage.service(ENVD, Router::new().fallback(takes)).await;
    // All that is sent is there at once, so that one read gets head and body once hyper reads that
    // much, which it learns within a few requests.
    let mut client = stage.stream_with("192.0.2.1:1", 1024 * 1024);
    for length in [200_000; 20].into_iter().chain([60_000, 0, 250_000, 1]) {
        let head = format!(
            "POST / HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n\r\n",
            host(ENVD)
        );
        let request = [head.as_bytes(), &vec![b'x'; length]].concat();
        client.write_all(&request).await.unwrap();
        let answer = read_head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    }
    // The bound on heads is as it was, whole or in pieces, with other requests before or not.
    let large = format!("x: {}\r\n", "x".repeat(1000)).repeat(70);
    let begun = format!("POST / HTTP/1.1\r\nhost: {}\r\n{large}", host(ENVD));
    for piece in begun.as_bytes().chunks(5000) {
        client.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    let read = timeout(LONG, client.read_to_string(&mut answer)).await;
    read.expect("closed in time").unwrap();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(answer.contains(r#""code":431"#), "{answer}");
}

#[tokio::test]
async fn large_heads_on_http2_are_431_with_a_body() {
    let stage = Stage::new().await;
    let mut request = get(ENVD, "/");
    *request.uri_mut() = format!("http://{}/", host(ENVD)).parse().unwrap();
    let large = "x".repeat(100 * 1024);
    request
        .headers_mut()
        .insert("x-large", large.parse().unwrap());
    let response = stage.http2().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), 431);
    assert!(text(response).await.contains(r#""code":431"#));
}

#[tokio::test]
async fn silent_and_slow_clients_are_closed() {
    const HEAD: Duration = Duration::from_millis(200);
    const IDLE: Duration = Duration::from_secs(2);
    let stage = Stage::with(|config| {
        config.limits.head_timeout = HEAD;
        config.limits.client_idle_timeout = IDLE;
    })
    .await;
    let router = Router::new().fallback(|| async { "ok" });
    stage.service(ENVD, router).await;
    let whole = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", host(ENVD));
    // Sent, then after an answer if there is one, and how long the connection lives from there.
    let cases = [
        ("", "", HEAD),
        ("PRI * HTTP", "", HEAD),
        ("GET / HTTP/1.1\r\nhost: x", "", HEAD),
        (&*whole, "", IDLE),
        (&*whole, "GET / HT", HEAD),
    ];
    let stage = &stage;
    let checks = cases.map(|(first, then, life)| async move {
        let mut stream = stage.connect().await;
        let mut begun = Instant::now();
        stream.write_all(first.as_bytes()).await.unwrap();
        if first.ends_with("\r\n\r\n") {
            read_until(&mut stream, "\r\n\r\nok").await;
            begun = Instant::now();
            stream.write_all(then.as_bytes()).await.unwrap();
        }
        assert_eq!(read_all(&mut stream).await, "");
        let lived = begun.elapsed();
        let most = if life == HEAD { IDLE } else { IDLE * 5 };
        // The clock of the wait starts a moment before ours.
        let least = life - Duration::from_millis(50);
        assert!(
            lived >= least && lived < most,
            "{first:?} {then:?}: {lived:?}"
        );
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn a_busy_connection_is_never_idle() {
    let stage = Stage::with(|config| {
        config.limits.head_timeout = Duration::from_millis(50);
        config.limits.client_idle_timeout = Duration::from_millis(50);
    })
    .await;
    let router = Router::new().fallback(|| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        "slow"
    });
    stage.service(ENVD, router).await;
    let response = stage
        .http1()
        .await
        .send_request(get(ENVD, "/"))
        .await
        .unwrap();
    assert_eq!(text(response).await, "slow");
    let mut request = get(ENVD, "/");
    *request.uri_mut() = format!("http://{}/", host(ENVD)).parse().unwrap();
    let response = stage.http2().await.send_request(request).await.unwrap();
    assert_eq!(text(response).await, "slow");
}

#[tokio::test]
async fn idle_connections_of_http2_are_closed() {
    let stage = Stage::with(|config| {
        config.limits.client_idle_timeout = Duration::from_millis(200);
    })
    .await;
    stage
        .service(ENVD, Router::new().fallback(|| async { "ok" }))
        .await;
    let mut request = get(ENVD, "/");
    *request.uri_mut() = format!("http://{}/", host(ENVD)).parse().unwrap();
    let mut client = stage.http2().await;
    assert_eq!(
        text(client.send_request(request).await.unwrap()).await,
        "ok"
    );
    crate::support::eventually("closed", || client.is_closed()).await;
}

#[tokio::test]
async fn one_request_too_many_to_a_sandbox_is_429() {
    let stage = Stage::with(|config| {
        config.limits.sandbox_requests_max = NonZeroU32::new(2);
    })
    .await;
    let go = Arc::new(Notify::new());
    let (here, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let router = Router::new().fallback({
        let go = go.clone();
        move || {
            here.send(()).unwrap();
            let go = go.clone();
            async move {
                go.notified().await;
                "done"
            }
        }
    });
    stage.service(3000, router).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = stage.http1().await;
        open.push(tokio::spawn(async move {
            client.send_request(get(3000, "/")).await
        }));
        arrived.recv().await.unwrap();
    }
    let response = stage
        .http1()
        .await
        .send_request(get(3000, "/"))
        .await
        .unwrap();
    assert_eq!(response.status(), 429);
    let expected = format!(
        r#"{{"sandboxId":"{ID}","message":"The sandbox has too many concurrent incoming connections (limit: 2)","connectionLimit":2,"code":429}}"#
    );
    assert_eq!(text(response).await, expected);
    go.notify_waiters();
    for task in open {
        assert_eq!(text(task.await.unwrap().unwrap()).await, "done");
    }
    go.notify_one();
    let response = stage
        .http1()
        .await
        .send_request(get(3000, "/"))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let stage = Stage::with(|config| config.limits.connections_max = 1).await;
    let listener = stage.listener(3000).await;
    let mut first = stage.connect().await;
    let ask = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", host(3000));
    first.write_all(ask.as_bytes()).await.unwrap();
    // A request is under way, so it cannot go to make room.
    let (_unanswered, _) = listener.accept().await.unwrap();
    let mut second = stage.connect().await;
    let answer = read_all(&mut second).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{answer}"
    );
    drop(first);
    crate::support::eventually("there is room again", || stage.serving_connections() == 0).await;
    let answer = stage
        .raw(format!(
            "GET / HTTP/1.1\r\nhost: api.{DOMAIN}\r\nconnection: close\r\n\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_large_body_that_nobody_wants_does_not_hide_its_answer() {
    let stage = Stage::new().await;
    let body = vec![b'x'; 100 * 1024 * 1024];
    for (target, expected) in [(host(3000), "502"), (format!("api.{DOMAIN}"), "200")] {
        let mut stream = stage.connect().await;
        let head = format!(
            "POST / HTTP/1.1\r\nhost: {target}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A client that writes everything before it reads.
        stream.write_all(&body).await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected}")),
            "{answer:.300}"
        );
    }
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_read_away_to_a_bound() {
    const BOUND: usize = 128 * 1024 * 1024;
    let stage = Stage::new().await;
    let mut client = stage.stream("192.0.2.1:1");
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {}\r\ncontent-length: 10000000000\r\n\r\n",
        host(3000)
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let mut taken = 0;
    while let Ok(written) = client.write(&[b'x'; 32 * 1024]).await {
        taken += written;
    }
    // Some lay in buffers when the answer was given and at the end.
    assert!(taken < BOUND + 1024 * 1024, "{taken}");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}

const EARLY_HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";

/// Serves one connection of a port: says `first`, then `again` until nobody listens.
async fn says(stage: &Stage, port: u16, first: String, again: &'static str) -> JoinHandle<()> {
    let listener = stage.listener(port).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(first.as_bytes()).await.unwrap();
        let again = again.repeat(100);
        while !again.is_empty() && stream.write_all(again.as_bytes()).await.is_ok() {}
    })
}

#[tokio::test]
async fn endless_informational_answers_are_cut_off() {
    let stage = Stage::new().await;
    for port in [ENVD, 3000] {
        let service = says(&stage, port, String::new(), EARLY_HINTS).await;
        let mut client = stage.http1().await;
        let asked = client.send_request(get(port, "/"));
        let response = timeout(LONG, asked).await.expect("an answer").unwrap();
        assert_eq!(response.status(), 502);
        let body = text(response).await;
        assert!(body.contains("port is not open"), "{body}");
        let cut = timeout(LONG, service).await;
        cut.expect("the service's connection is cut").unwrap();
    }
}

#[tokio::test]
async fn informational_answers_are_bounded_in_number_and_bytes() {
    let large = format!("HTTP/1.1 103 Early\r\nlink: {}\r\n\r\n", "x".repeat(30_000));
    let cases = [
        (EARLY_HINTS.repeat(100), 200),
        (EARLY_HINTS.repeat(101), 502),
        (large.repeat(8), 200),
        (large.repeat(9), 502),
    ];
    for (before, expected) in cases {
        let stage = Stage::new().await;
        let answer = before + "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        says(&stage, 3000, answer, "").await;
        let mut client = stage.http1().await;
        let response = client.send_request(get(3000, "/")).await.unwrap();
        assert_eq!(response.status(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_head_that_comes_late_has_no_more_time() {
    const HEAD: Duration = Duration::from_secs(10);
    let stage = Stage::with(|config| config.limits.head_timeout = HEAD).await;
    for late in ["\r\n", "GET / HT", "PRI * HT"] {
        let begun = tokio::time::Instant::now();
        let mut client = stage.stream("192.0.2.1:1");
        for byte in late.bytes() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.write_all(&[byte]).await.unwrap();
        }
        assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 0);
        assert!(begun.elapsed() < HEAD + Duration::from_millis(100));
    }
}
