//! The edge's own answers, over a connection.

use axum::Router;
use casemate_edge::{RouteTarget, TrafficToken};

use crate::support::{ENVD, ID, Stage, get, host, read_until, text};

async fn ask(stage: &Stage, port: u16, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = get(port, path);
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let response = stage.http1().await.send_request(request).await.unwrap();
    (response.status().as_u16(), text(response).await)
}

#[tokio::test]
async fn unknown_dead_and_closed_are_told_apart() {
    let stage = Stage::new().await;
    let closed = format!(
        r#"{{"sandboxId":"{ID}","message":"The sandbox is running but port is not open","port":3000,"code":502}}"#
    );
    assert_eq!(ask(&stage, 3000, "/", &[]).await, (502, closed));
    stage.world.end(ID);
    let gone =
        format!(r#"{{"sandboxId":"{ID}","message":"The sandbox was not found","code":502}}"#);
    assert_eq!(ask(&stage, 3000, "/", &[]).await, (502, gone.clone()));
    assert_eq!(ask(&stage, ENVD, "/health", &[]).await, (502, gone));
    assert_eq!(stage.edge.held(), (0, 0));
}

#[tokio::test]
async fn a_port_that_is_no_port_is_closed() {
    let stage = Stage::new().await;
    let host = format!("70000-{ID}.x");
    let (status, body) = ask(&stage, 1, "/", &[("host", &host)]).await;
    assert_eq!(status, 502);
    assert!(
        body.contains(r#""port":70000"#) && body.contains("port is not open"),
        "{body}"
    );
}

#[tokio::test]
async fn browsers_get_a_page() {
    let stage = Stage::new().await;
    let browser = [
        ("user-agent", "Mozilla/5.0 Firefox/140.0"),
        ("accept", "text/html"),
    ];
    let (status, body) = ask(&stage, 3000, "/", &browser).await;
    assert_eq!(status, 502);
    assert!(
        body.starts_with("<html") && body.contains("no service running on port"),
        "{body}"
    );
    stage.world.end(ID);
    let (_, body) = ask(&stage, 3000, "/", &browser).await;
    assert!(
        body.contains("Sandbox Not Found") && body.contains(ID),
        "{body}"
    );
}

#[tokio::test]
async fn reserved_paths_are_closed_before_any_lookup() {
    let stage = Stage::new().await;
    let router = Router::new().fallback(|| async { "through" });
    stage.service(ENVD, router.clone()).await;
    stage.service(3000, router).await;
    for path in [
        "/init",
        "//init",
        "/files/../init",
        "/init/",
        "/%69nit?x=1",
        "/upgrade",
    ] {
        let (status, body) = ask(&stage, ENVD, path, &[("x-access-token", "t")]).await;
        assert_eq!(status, 404, "{path}: {body}");
        assert!(
            body.contains("reserved for the") && body.contains(r#""code":404"#),
            "{body}"
        );
        // Another port's path of that name is the user's own.
        assert_eq!(ask(&stage, 3000, path, &[]).await.0, 200, "{path}");
    }
    let known = ask(&stage, ENVD, "/init", &[]).await;
    stage.world.end(ID);
    assert_eq!(ask(&stage, ENVD, "/init", &[]).await, known);
    let no_dials_for_reserved = stage.world.dials();
    ask(&stage, ENVD, "/init", &[]).await;
    assert_eq!(stage.world.dials(), no_dials_for_reserved);
}

#[tokio::test]
async fn private_ports_want_their_token() {
    let stage = Stage::new().await;
    let router = Router::new().fallback(|headers: http::HeaderMap| async move {
        format!("token {:?}", headers.get("e2b-traffic-access-token"))
    });
    stage.service(ENVD, router.clone()).await;
    stage.service(3000, router).await;
    let token = TrafficToken::new("right");
    stage.world.run(
        ID,
        RouteTarget::Running {
            traffic_token: Some(token),
            mask_host: None,
            https_ports: Vec::new(),
        },
    );
    let header = "e2b-traffic-access-token";
    let (status, body) = ask(&stage, 3000, "/", &[]).await;
    assert!(
        status == 403 && body.contains("is missing"),
        "{status} {body}"
    );
    for wrong in ["wrong", "righ", "right2", ""] {
        let (status, body) = ask(&stage, 3000, "/", &[(header, wrong)]).await;
        assert!(
            status == 403 && body.contains("is invalid"),
            "{status} {body}"
        );
    }
    let through = ask(&stage, 3000, "/", &[(header, "right")]).await;
    assert_eq!(through, (200, r#"token Some("right")"#.to_owned()));
    assert_eq!(ask(&stage, ENVD, "/", &[]).await.0, 200);
    let (status, body) = ask(&stage, 3001, "/", &[(header, "right")]).await;
    assert!(
        status == 502 && body.contains("port is not open"),
        "{status} {body}"
    );
}

#[tokio::test]
async fn a_sandbox_in_transition_asks_for_patience() {
    let stage = Stage::new().await;
    stage.world.run(ID, RouteTarget::Transitioning);
    let (status, body) = ask(&stage, 3000, "/", &[]).await;
    assert!(
        status == 409 && body.contains("still transitioning"),
        "{status} {body}"
    );
}

#[tokio::test]
async fn a_failed_lookup_says_nothing_about_the_sandbox() {
    let stage = Stage::new().await;
    *stage.world.broken.lock().unwrap() = true;
    let (status, body) = ask(&stage, 3000, "/", &[]).await;
    assert_eq!(status, 503, "it may be asked again");
    assert!(
        body.starts_with("Unexpected error when routing request: "),
        "{body}"
    );
    assert!(!body.contains("catalog"), "{body}");
}

#[tokio::test]
async fn answers_that_are_no_http_count_as_none() {
    let stage = Stage::new().await;
    let listener = stage.listener(3000).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-x\r\n")
                .await
                .unwrap();
        }
    });
    let (status, body) = ask(&stage, 3000, "/", &[]).await;
    assert!(
        status == 502 && body.contains("port is not open"),
        "{status} {body}"
    );
}

/// The service is not at fault, and neither is its port.
#[tokio::test]
async fn a_body_that_is_none_is_the_clients_fault() {
    use tokio::io::AsyncWriteExt;

    for port in [ENVD, 3000] {
        let stage = Stage::new().await;
        let router = Router::new().fallback(async |body: axum::body::Bytes| body);
        stage.service(port, router).await;
        let mut stream = stage.connect().await;
        let ask = format!(
            "POST / HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabXX0\r\n\r\n",
            host(port)
        );
        stream.write_all(ask.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "}").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("body is malformed"), "{answer}");
    }
}

/// A client that keeps connections would put its next request into one that is about to end.
#[tokio::test]
async fn an_answer_to_an_unread_request_says_that_the_connection_ends() {
    use tokio::io::AsyncWriteExt;

    let stage = Stage::new().await;
    stage.world.end(ID);
    let mut client = stage.connect().await;
    let head = format!(
        "POST /process.Process/Start HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        crate::support::host(ENVD)
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let answer = crate::support::read_until(&mut client, "502").await;
    client.write_all(b"5\r\nhello\r\n0\r\n\r\n").await.unwrap();
    let answer = answer + &crate::support::read_all(&mut client).await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.contains("was not found"), "{answer}");

    // A request without a body leaves its connection open.
    let mut client = stage.http1().await;
    for _ in 0..2 {
        client.ready().await.unwrap();
        let response = client.send_request(get(ENVD, "/health")).await.unwrap();
        assert_eq!(response.status(), 502);
        assert!(!response.headers().contains_key("connection"));
        text(response).await;
    }
}
