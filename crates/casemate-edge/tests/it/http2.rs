//! HTTP/2 in the clear, with prior knowledge.

use std::sync::Arc;

use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use tokio::sync::Barrier;

use crate::support::{DOMAIN, ENVD, ID, Stage, host, text};

fn to(host: &str, path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://{host}{path}"))
        .body(Full::default())
        .unwrap()
}

#[tokio::test]
async fn services_see_http1_with_a_host_and_one_cookie() {
    let stage = Stage::new().await;
    let router = Router::new().fallback(
        |headers: HeaderMap, request: axum::extract::Request| async move {
            format!(
                "{:?} {} {:?} {:?}",
                request.version(),
                request.uri(),
                headers.get_all("host").iter().collect::<Vec<_>>(),
                headers.get_all("cookie").iter().collect::<Vec<_>>(),
            )
        },
    );
    stage.service(3000, router).await;
    let mut request = to(&host(3000), "/a%20b?c=d");
    request
        .headers_mut()
        .append("cookie", "a=1".parse().unwrap());
    request
        .headers_mut()
        .append("cookie", "b=2".parse().unwrap());
    let response = stage.http2().await.send_request(request).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    let expected = format!(r#"HTTP/1.1 /a%20b?c=d ["{}"] ["a=1; b=2"]"#, host(3000));
    assert_eq!(text(response).await, expected);
}

#[tokio::test]
async fn the_api_and_routing_headers_work_too() {
    let stage = Stage::new().await;
    stage
        .service(3000, Router::new().fallback(|| async { "web" }))
        .await;
    let mut client = stage.http2().await;
    let response = client
        .send_request(to(&format!("api.{DOMAIN}"), "/x"))
        .await
        .unwrap();
    assert_eq!(text(response).await, "api /x 127.0.0.1");
    let mut request = to("localhost", "/");
    request
        .headers_mut()
        .insert("e2b-sandbox-id", ID.parse().unwrap());
    request
        .headers_mut()
        .insert("e2b-sandbox-port", "3000".parse().unwrap());
    assert_eq!(
        text(client.send_request(request).await.unwrap()).await,
        "web"
    );
    let response = client.send_request(to(&host(3001), "/")).await.unwrap();
    assert_eq!(response.status(), 502);
}

#[tokio::test]
async fn many_streams_are_open_at_once() {
    const STREAMS: usize = 100;
    let stage = Stage::new().await;
    let all = Arc::new(Barrier::new(STREAMS));
    let router = Router::new().fallback(move || {
        let all = all.clone();
        async move {
            all.wait().await;
            "together"
        }
    });
    stage.service(ENVD, router).await;
    let client = stage.http2().await;
    let answers = (0..STREAMS).map(|_| {
        let mut client = client.clone();
        async move { text(client.send_request(to(&host(ENVD), "/")).await.unwrap()).await }
    });
    let answers = futures_util::future::join_all(answers).await;
    assert!(answers.iter().all(|answer| answer == "together"));
}

#[tokio::test]
async fn large_bodies_arrive_whole_both_ways() {
    let stage = Stage::new().await;
    let router = Router::new()
        .fallback(|body: axum::body::Body| async move { body })
        .layer(axum::extract::DefaultBodyLimit::disable());
    stage.service(3000, router).await;
    let body: Bytes = (0..16 * 1024 * 1024 + 5)
        .map(|i| (i % 253) as u8)
        .collect::<Vec<_>>()
        .into();
    let request = Request::post(format!("http://{}/", host(3000)))
        .body(Full::new(body.clone()))
        .unwrap();
    let response = stage.http2().await.send_request(request).await.unwrap();
    let back = response.into_body().collect().await.unwrap().to_bytes();
    assert!(back == body, "{} of {} bytes", back.len(), body.len());
}
