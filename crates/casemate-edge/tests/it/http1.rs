//! HTTP/1.1 as clients and simple services really speak it.

use axum::Router;
use axum::body::Body;
use axum::routing::{get as on_get, post};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::io::AsyncWriteExt;

use crate::support::{Stage, get, host, read_until, text};

fn echo() -> Router {
    Router::new()
        .route(
            "/echo",
            post(|body: Body| async move { body }).get(|body: Body| async move { body }),
        )
        .route("/ok", on_get(|| async { "ok" }))
        .layer(axum::extract::DefaultBodyLimit::disable())
}

fn pattern(len: usize) -> Bytes {
    (0..len)
        .map(|i| (i % 251) as u8)
        .collect::<Vec<u8>>()
        .into()
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let stage = Stage::new().await;
    stage.service(3000, echo()).await;
    let mut client = stage.http1().await;
    for _ in 0..20 {
        client.ready().await.unwrap();
        let response = client.send_request(get(3000, "/ok")).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(text(response).await, "ok");
    }
}

#[tokio::test]
async fn a_service_s_own_date_stays_and_others_get_ours() {
    let stage = Stage::new().await;
    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let dated = on_get(|| async { ([(http::header::DATE, OLD)], "ok") });
    stage.service(3000, Router::new().route("/", dated)).await;
    let date_of = async |port| {
        let answer = stage.http1().await.send_request(get(port, "/")).await;
        let answer = answer.unwrap();
        assert_eq!(answer.headers().get_all("date").iter().count(), 1);
        answer.headers()["date"].to_str().unwrap().to_owned()
    };
    assert_eq!(date_of(3000).await, OLD);
    // Nobody listens there: the edge's own answer.
    assert!(date_of(3001).await.ends_with(" GMT"));
}

#[tokio::test]
async fn large_bodies_arrive_whole_both_ways() {
    let stage = Stage::new().await;
    stage.service(3000, echo()).await;
    let body = pattern(32 * 1024 * 1024 + 17);
    let request = Request::post("/echo")
        .header("host", host(3000))
        .body(Full::new(body.clone()))
        .unwrap();
    let response = stage.http1().await.send_request(request).await.unwrap();
    let back = response.into_body().collect().await.unwrap().to_bytes();
    assert!(
        back == body,
        "{} bytes came back of {}",
        back.len(),
        body.len()
    );
}

#[tokio::test]
async fn a_get_with_a_chunked_body_keeps_it() {
    let stage = Stage::new().await;
    stage.service(3000, echo()).await;
    let answer = stage
        .raw(format!(
            "GET /echo HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n\
             connection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            host(3000)
        ))
        .await;
    assert!(answer.contains("hello"), "{answer}");
}

#[tokio::test]
async fn continue_is_answered_once_there_is_somebody_to_send_to() {
    let stage = Stage::new().await;
    stage.service(3000, echo()).await;
    let head = |port| {
        format!(
            "POST /echo HTTP/1.1\r\nhost: {}\r\ncontent-length: 5\r\n\
             expect: 100-continue\r\nconnection: close\r\n\r\n",
            host(port)
        )
    };
    let mut stream = stage.connect().await;
    stream.write_all(head(3000).as_bytes()).await.unwrap();
    read_until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.write_all(b"hello").await.unwrap();
    let answer = read_until(&mut stream, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let refused = stage.raw(head(3001)).await;
    assert!(refused.starts_with("HTTP/1.1 502"), "{refused}");
}

#[tokio::test]
async fn services_of_http_1_0_end_their_body_by_closing() {
    let stage = Stage::new().await;
    let listener = stage.listener(3000).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream
            .write_all(b"HTTP/1.0 200 OK\r\n\r\nold ")
            .await
            .unwrap();
        stream.write_all(b"school").await.unwrap();
    });
    let mut client = stage.http1().await;
    let response = client.send_request(get(3000, "/")).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_11);
    assert_eq!(text(response).await, "old school");
    // The client's connection lives on.
    client.ready().await.unwrap();
    assert_eq!(
        client.send_request(get(3001, "/")).await.unwrap().status(),
        502
    );
}

#[tokio::test]
async fn clients_of_http_1_0_are_served() {
    let stage = Stage::new().await;
    stage.service(3000, echo()).await;
    let answer = stage
        .raw(format!("GET /ok HTTP/1.0\r\nhost: {}\r\n\r\n", host(3000)))
        .await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[tokio::test]
async fn heads_without_bodies_keep_their_length() {
    let stage = Stage::new().await;
    stage.service(3000, echo()).await;
    let mut client = stage.http1().await;
    let mut request = get(3000, "/ok");
    *request.method_mut() = http::Method::HEAD;
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.headers()["content-length"], "2");
    assert_eq!(text(response).await, "");
    client.ready().await.unwrap();
    assert_eq!(
        text(client.send_request(get(3000, "/ok")).await.unwrap()).await,
        "ok"
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let stage = Stage::new().await;
    stage.service(3000, echo()).await;
    let one = format!("GET /ok HTTP/1.1\r\nhost: {}\r\n\r\n", host(3000));
    let last = format!(
        "GET /ok HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        host(3000)
    );
    let answer = stage.raw(format!("{one}{one}{last}")).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
}

#[tokio::test]
async fn ambiguous_lengths_are_not_smuggled() {
    let stage = Stage::new().await;
    stage.service(3000, echo()).await;
    // The chunked framing wins, so what follows is a second request, not the first one's body.
    let answer = stage
        .raw(format!(
            "POST /echo HTTP/1.1\r\nhost: {h}\r\ncontent-length: 4\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            h = host(3000)
        ))
        .await;
    assert!(
        answer.contains("abc") || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
    let answer = stage
        .raw(format!(
            "POST /echo HTTP/1.1\r\nhost: {}\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
            host(3000)
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}
