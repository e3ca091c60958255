//! Which requests reach which service, over real connections.

use axum::Router;
use casemate_edge::{Edge, EdgeConfig, InvalidHost, RouteTarget};
use casemate_types::peer::OverTls;
use http::HeaderMap;
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::support::{DOMAIN, ENVD, ID, Stage, World, get, read_all, text};

/// A service that tells what it was sent.
fn mirror(name: &'static str) -> Router {
    Router::new().fallback(
        move |headers: HeaderMap, request: axum::extract::Request| async move {
            let mut lines = vec![format!("{name} {} {}", request.method(), request.uri())];
            for (key, value) in &headers {
                lines.push(format!("{key}: {}", value.to_str().unwrap()));
            }
            lines.join("\n")
        },
    )
}

/// A host, headers beside it, and what the answer is.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

async fn stage() -> Stage {
    let stage = Stage::new().await;
    stage.service(ENVD, mirror("envd")).await;
    stage.service(3000, mirror("web")).await;
    stage
}

async fn ask(stage: &Stage, host: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = get(1, "/p?q=1");
    request.headers_mut().insert("host", host.parse().unwrap());
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let response = stage.http1().await.send_request(request).await.unwrap();
    (response.status().as_u16(), text(response).await)
}

#[tokio::test]
async fn hosts_and_headers_find_their_service() {
    let stage = stage().await;
    let to_web = [("E2b-Sandbox-Id", ID), ("E2b-Sandbox-Port", "3000")];
    let web_host = format!("3000-{ID}.{DOMAIN}");
    let envd_host = format!("49983-{ID}-6532622b.whatever.example");
    let api = format!("api.{DOMAIN}");
    let sandbox = format!("sandbox.{DOMAIN}");
    let cases: [Case<'_>; 12] = [
        (&web_host, &[], "web GET /p?q=1"),
        (&envd_host, &[], "envd GET /p?q=1"),
        (&envd_host, &to_web, "envd GET /p?q=1"),
        ("localhost", &to_web, "web GET /p?q=1"),
        ("127.0.0.1:9", &to_web, "web GET /p?q=1"),
        ("[::1]:9", &to_web, "web GET /p?q=1"),
        (DOMAIN, &to_web, "web GET /p?q=1"),
        ("box:1", &to_web, "web GET /p?q=1"),
        (&sandbox, &to_web, "web GET /p?q=1"),
        (&api, &to_web, "api /p 127.0.0.1"),
        ("evil.example", &to_web, "api /p 127.0.0.1"),
        ("localhost", &[], "api /p 127.0.0.1"),
    ];
    for (host, headers, first_line) in cases {
        let (status, body) = ask(&stage, host, headers).await;
        assert_eq!(status, 200, "{host} {headers:?}: {body}");
        assert_eq!(body.lines().next(), Some(first_line), "{host} {headers:?}");
    }
}

#[tokio::test]
async fn targets_that_cannot_be_read_are_400_in_plain_text() {
    let stage = stage().await;
    let bad_id = format!("3000-a_b.{DOMAIN}");
    let cases: [Case<'_>; 4] = [
        ("localhost", &[("e2b-sandbox-id", ID)], "missing header"),
        (
            "localhost",
            &[("e2b-sandbox-id", ID), ("e2b-sandbox-port", "x")],
            "Invalid sandbox port",
        ),
        (
            "localhost",
            &[("e2b-sandbox-id", "A"), ("e2b-sandbox-port", "1")],
            "Invalid sandbox ID",
        ),
        (&bad_id, &[], "Invalid sandbox ID"),
    ];
    for (host, headers, expected) in cases {
        assert_eq!(ask(&stage, host, headers).await, (400, expected.to_owned()));
    }
    let twice = "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n";
    let answer = stage.raw(twice).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.ends_with("Invalid host"), "{answer}");
}

#[tokio::test]
async fn the_head_arrives_as_it_was_sent() {
    let stage = stage().await;
    let host = format!("3000-{ID}.{DOMAIN}");
    let sent = [
        ("accept-encoding", "gzip"),
        ("x-forwarded-for", "1.2.3.4"),
        ("te", "trailers, deflate"),
        ("connection", "x-private, keep-alive"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic x"),
        ("cookie", "a=1; b=2"),
    ];
    let (_, body) = ask(&stage, &host, &sent).await;
    let mut lines: Vec<&str> = body.lines().skip(1).collect();
    lines.sort_unstable();
    let mut expected = vec![
        "accept-encoding: gzip".to_owned(),
        "connection: close".to_owned(),
        "cookie: a=1; b=2".to_owned(),
        format!("host: {host}"),
        "te: trailers".to_owned(),
        "x-forwarded-for: 1.2.3.4".to_owned(),
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn the_shared_host_is_rewritten_and_told() {
    let stage = stage().await;
    let shared = format!("sandbox.{DOMAIN}");
    let headers = [("e2b-sandbox-id", ID), ("e2b-sandbox-port", "3000")];
    let (_, body) = ask(&stage, &shared, &headers).await;
    assert!(
        body.contains(&format!("\nhost: 3000-{ID}.{DOMAIN}")),
        "{body}"
    );
    assert!(
        body.contains(&format!("\nx-forwarded-host: {shared}")),
        "{body}"
    );
}

#[tokio::test]
async fn tls_with_a_service_is_for_the_host_that_it_is_sent() {
    let stage = stage().await;
    let web = format!("3000-{ID}.{DOMAIN}");
    let shared = format!("sandbox.{DOMAIN}");
    let by_header = [("e2b-sandbox-id", ID), ("e2b-sandbox-port", "3000")];
    let name = format!("3000-{ID}.demo.test");
    let cases = [
        (None, &*web, &[][..], &*name),
        (None, &*shared, &by_header[..], &*name),
        (Some("masked.example:${PORT}"), &*web, &[], "masked.example"),
        (Some("localhost"), &*shared, &by_header, "localhost"),
        (Some("[::1]:${PORT}"), &*web, &[], "::1"),
    ];
    for (mask, host, headers, told) in cases {
        let target = RouteTarget::Running {
            traffic_token: None,
            mask_host: mask.map(str::to_owned),
            https_ports: vec![3000],
        };
        stage.world.run(ID, target);
        let (status, body) = ask(&stage, host, headers).await;
        assert_eq!(status, 200, "{body}");
        let hosts = std::mem::take(&mut *stage.world.tls_hosts.lock().unwrap());
        assert_eq!(hosts, [told], "{mask:?} {host}");
    }
}

#[tokio::test]
async fn a_target_in_absolute_form_wins_over_the_host() {
    let stage = stage().await;
    let answer = stage
        .raw(format!(
            "GET http://3000-{ID}.{DOMAIN}/x?y HTTP/1.1\r\nhost: evil\r\nconnection: close\r\n\r\n"
        ))
        .await;
    assert!(answer.contains("web GET /x?y"), "{answer}");
    assert!(
        answer.contains(&format!("host: 3000-{ID}.{DOMAIN}")),
        "{answer}"
    );
}

#[tokio::test]
async fn an_edge_without_an_api_refuses_other_hosts() {
    let world = std::sync::Arc::new(World::default());
    let edge = Edge::new(EdgeConfig::new(DOMAIN), world.clone(), world, InvalidHost);
    let (client, server) = tokio::io::duplex(4096);
    let peer = "192.0.2.1:1".parse().unwrap();
    let serving = tokio::spawn({
        let edge = edge.clone();
        async move {
            edge.serve_stream(server, peer, CancellationToken::new())
                .await
        }
    });
    let io = hyper_util::rt::TokioIo::new(client);
    let (mut sender, conn) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(conn);
    let mut request = get(1, "/");
    request
        .headers_mut()
        .insert("host", "demo.test".parse().unwrap());
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "Invalid host"
    );
    drop(sender);
    serving.await.unwrap();
}

#[tokio::test]
async fn the_api_knows_which_connections_came_over_tls() {
    let world = std::sync::Arc::new(World::default());
    let api = Router::new().fallback(async |request: axum::extract::Request| {
        match request.extensions().get::<OverTls>() {
            Some(OverTls) => "tls",
            None => "plain",
        }
    });
    let edge = Edge::new(EdgeConfig::new(DOMAIN), world.clone(), world, api);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = TcpStream::connect(listener.local_addr().unwrap()).await;
    let (secure, accepted) = tokio::io::duplex(4096);
    let shutdown = CancellationToken::new();
    tokio::spawn({
        let (edge, shutdown) = (edge.clone(), shutdown.clone());
        async move { edge.serve(listener, shutdown).await }
    });
    let peer = "192.0.2.1:1".parse().unwrap();
    tokio::spawn(async move { edge.serve_stream(accepted, peer, shutdown).await });
    for (answer, expected) in [
        (asked(plain.unwrap()).await, "plain"),
        (asked(secure).await, "tls"),
    ] {
        assert!(answer.ends_with(expected), "{answer}");
    }
}

async fn asked(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let ask = b"GET / HTTP/1.1\r\nhost: api.demo.test\r\nconnection: close\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn plain_connect_is_refused() {
    let stage = stage().await;
    let mut stream = stage.connect().await;
    let ask =
        "CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\nconnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, ask.as_bytes())
        .await
        .unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}
