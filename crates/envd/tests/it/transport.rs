use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envd_wire::Codec;
use envd_wire::process::ListResponse;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use std::io::Write;

use crate::http::Connection;
use crate::server::{Server, TOKEN};
use crate::streams::{Stream, envelope, refused, run, start_with};

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:")))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_call_as_the_python_sdk_makes_it() {
    let headers = [
        ("content-encoding", "identity"),
        ("accept-encoding", "identity"),
        ("connect-protocol-version", "1"),
        ("connect-timeout-ms", "60000"),
    ];
    let server = Server::open();
    let reply = server
        .call_with("Process/List", &headers, &json!({"unknown": [1]}))
        .expect(200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.text(), "{}");
}

#[test]
fn a_stream_as_the_python_sdk_opens_it() {
    let server = Server::open();
    let mut connection = server.connect();
    connection.send(
        b"POST /process.Process/Start HTTP/1.1\r\nhost: x\r\n\
          content-type: application/connect+json\r\nconnect-accept-encoding: identity\r\n\
          connect-content-encoding: identity\r\naccept-encoding: zstd,gzip,br\r\n\
          transfer-encoding: chunked\r\n\r\n",
    );
    // Nothing may be answered before the message: the client would not send it any more.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let message = envelope(&json!({"process": {"cmd": "/bin/echo", "args": ["hi"]}}));
    connection.send(format!("{:x}\r\n", message.len()).as_bytes());
    connection.send(&message);
    connection.send(b"\r\n0\r\n\r\n");
    let mut stream = Stream::answered(connection);
    stream.pid();
    let finished = stream.finish();
    assert_eq!((finished.code(), finished.out()), (0, "hi\n"));
    assert_eq!(stream.connection.chunk(), None);
}

#[test]
fn the_other_codec() {
    let server = Server::open();
    let headers = [("content-type", "application/proto")];
    let reply = server
        .request("POST", "/process.Process/List", &headers, b"")
        .expect(200);
    assert_eq!(reply.header("content-type"), Some("application/proto"));
    let list: ListResponse = Codec::Binary.decode(&reply.body).unwrap();
    assert!(list.processes.is_empty());
}

#[test]
fn compressed_requests() {
    let server = Server::open();
    let headers = [
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ];
    let body = gzip(br#"{"path":"/"}"#);
    server
        .request("POST", "/filesystem.Filesystem/Stat", &headers, &body)
        .expect(200);
    server
        .request("POST", "/filesystem.Filesystem/Stat", &headers, b"no")
        .expect(400);
    let headers = [
        ("content-type", "application/json"),
        ("content-encoding", "br"),
    ];
    let reply = server
        .request("POST", "/filesystem.Filesystem/Stat", &headers, &body)
        .expect(501);
    assert_eq!(reply.json()["code"], "unimplemented");
    // Forty bytes that become as many megabytes do no harm.
    let bomb = gzip(&vec![b' '; 40 << 20]);
    let headers = [
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ];
    let reply = server
        .request("POST", "/process.Process/List", &headers, &bomb)
        .expect(429);
    assert_eq!(reply.json()["code"], "resource_exhausted");
}

#[test]
fn wrong_paths_methods_and_types() {
    let server = Server::open();
    let missing = server.get("/nope").expect(404);
    assert_eq!(missing.text(), "404 page not found\n");
    let json = [("content-type", "application/json")];
    let unknown = server
        .request("POST", "/process.Process/Nope", &json, b"{}")
        .expect(404);
    assert_eq!(unknown.text(), "404 page not found\n");
    let get = server.get("/process.Process/List").expect(405);
    assert_eq!((get.header("allow"), get.text()), (Some("POST"), ""));
    assert_eq!(server.request("HEAD", "/health", &[], b"").status, 405);
    assert_eq!(
        server
            .request("PUT", "/files", &[], b"")
            .expect(405)
            .header("allow"),
        Some("GET, POST")
    );
    for (path, kind) in [
        ("/process.Process/List", "application/connect+json"),
        ("/process.Process/List", "text/plain"),
        ("/process.Process/Start", "application/json"),
        ("/process.Process/StreamInput", "application/grpc"),
    ] {
        let reply = server
            .request("POST", path, &[("content-type", kind)], b"{}")
            .expect(415);
        assert!(reply.header("accept-post").unwrap().contains("json"));
        assert!(reply.body.is_empty());
    }
}

#[test]
fn bad_messages_and_deadlines() {
    let server = Server::open();
    let json = [("content-type", "application/json")];
    for body in [&b"{"[..], b"[]", br#"{"path":7}"#] {
        let reply = server
            .request("POST", "/filesystem.Filesystem/Stat", &json, body)
            .expect(400);
        assert_eq!(reply.json()["code"], "invalid_argument");
    }
    let late = [("connect-timeout-ms", "abc")];
    let reply = server
        .call_with("Process/List", &late, &json!({}))
        .expect(400);
    assert_eq!(reply.json()["code"], "invalid_argument");
    let (code, _) = refused(start_with(&server, &late, "true", &json!({})));
    assert_eq!(code, "invalid_argument");
    let typed = [("content-type", "application/connect+json")];
    for body in [
        &b""[..],
        b"\0\0\0",
        b"\0\xff\xff\xff\xff",
        b"\x02\0\0\0\0",
        b"\x01\0\0\0\x02{}",
    ] {
        let reply = server
            .request("POST", "/process.Process/Start", &typed, body)
            .expect(200);
        assert_eq!(reply.body[0], 2);
        assert!(reply.body.windows(7).any(|part| part == b"\"error\""));
    }
}

#[test]
fn a_large_head_is_refused_and_harms_nobody() {
    let server = Server::open();
    let long = "x".repeat(1 << 20);
    let mut connection = server.connect();
    // It may be closed before all is written.
    let head = format!("GET /health HTTP/1.1\r\nhost: x\r\nlong: {long}\r\n\r\n");
    let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        connection.send(head.as_bytes());
        connection.reply().status
    }));
    assert!(sent.is_err() || matches!(sent, Ok(431)));
    server.get("/health").expect(204);
}

#[test]
fn the_token_guards_all_but_four_routes() {
    let server = Server::secured();
    let message =
        "unauthorized access, please provide a valid access token or method signing if supported";
    for (method, path) in [
        ("POST", "/filesystem.Filesystem/ListDir"),
        ("POST", "/process.Process/Start"),
        ("POST", "/files/compose"),
        ("GET", "/metrics"),
        ("GET", "/envs"),
        ("POST", "/freeze"),
        ("POST", "/health"),
        ("GET", "/nope"),
    ] {
        let reply = server.request(
            method,
            path,
            &[("content-type", "application/connect+json")],
            b"",
        );
        let reply = reply.expect(401);
        assert_eq!(
            reply.json(),
            json!({"code": 401, "message": message}),
            "{path}"
        );
        assert_eq!(
            reply.header("content-type"),
            Some("application/json; charset=utf-8")
        );
        let wrong = [("x-access-token", "0123abce")];
        server.request(method, path, &wrong, b"").expect(401);
    }
    let right = [("x-access-token", TOKEN)];
    server.request("GET", "/envs", &right, b"").expect(200);
    let health = server.get("/health").expect(204);
    assert_eq!(health.header("cache-control"), Some("no-store"));
    assert_eq!(health.header("content-type"), None);
}

#[test]
fn named_users() {
    let server = Server::open();
    let unknown = basic("no-such-user");
    let headers = [("authorization", unknown.as_str())];
    let expected =
        json!({"code": "unauthenticated", "message": "invalid username: 'no-such-user'"});
    for (method, path) in [
        ("GET", "/health"),
        ("GET", "/files"),
        ("POST", "/process.Process/List"),
    ] {
        assert_eq!(
            server
                .request(method, path, &headers, b"")
                .expect(401)
                .json(),
            expected
        );
    }
    let (code, message) = refused(start_with(&server, &headers, "true", &json!({})));
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("unauthenticated", "invalid username: 'no-such-user'")
    );

    let mut stream = start_with(
        &server,
        &[("authorization", &basic("daemon"))],
        "id -un",
        &json!({"cwd": "/"}),
    );
    stream.pid();
    assert_eq!(stream.finish().out(), "daemon\n");
    assert_eq!(run(&server, "id -un", &json!({})).out(), "root\n");
}

#[test]
fn cross_origin_requests() {
    let server = Server::secured();
    let plain = server.get("/health").expect(204);
    assert_eq!(plain.header("access-control-allow-origin"), None);
    assert_eq!(plain.header("vary"), Some("Origin"));
    let origin = ("origin", "https://app.example");
    let reply = server.request("GET", "/envs", &[origin], b"").expect(401);
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert!(
        reply
            .header("access-control-expose-headers")
            .unwrap()
            .contains("Grpc-Status")
    );
    let headers = [
        origin,
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "content-type,x-access-token",
        ),
    ];
    let reply = server
        .request("OPTIONS", "/process.Process/List", &headers, b"")
        .expect(204);
    assert_eq!(reply.header("access-control-max-age"), Some("7200"));
    assert_eq!(reply.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(
        reply.header("access-control-allow-headers"),
        Some("content-type,x-access-token")
    );
    assert_eq!(reply.header("access-control-allow-credentials"), None);
}

#[test]
fn a_connection_is_used_again() {
    let server = Server::open();
    let mut connection = server.connect();
    for _ in 0..3 {
        connection.request("GET", "/health", &[], b"");
        assert_eq!(connection.reply().status, 204);
        let body = envelope(&json!({"process": {"cmd": "/bin/true"}}));
        let headers = [("content-type", "application/connect+json")];
        connection.request("POST", "/process.Process/Start", &headers, &body);
        assert_eq!(connection.reply().status, 200);
    }
}

/// A request whose body comes in one chunk, without the chunk that ends it.
fn begin_chunked(connection: &mut Connection, path: &str, headers: &str, body: &[u8]) {
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}transfer-encoding: chunked\r\n\r\n");
    let size = format!("{:x}\r\n", body.len());
    connection.send(&[head.as_bytes(), size.as_bytes(), body, b"\r\n"].concat());
}

#[test]
fn a_connection_is_used_again_when_the_end_of_a_body_comes_late() {
    const STREAM: &str = "content-type: application/connect+json\r\n";
    let ghost = format!("{STREAM}authorization: {}\r\n", basic("no-such-user"));
    let run = |process| envelope(&json!({ "process": process }));
    let start = "/process.Process/Start";
    let cases = [
        (start, &*ghost, run(json!({"cmd": "true"}))),
        (start, STREAM, run(json!({"cmd": "true", "cwd": "/nope"}))),
        (start, STREAM, run(json!({"cmd": "/bin/true"}))),
        (start, STREAM, b"\x02\0\0\0\0".to_vec()),
        (
            "/process.Process/Connect",
            STREAM,
            run(json!({"pid": 999_999})),
        ),
        (start, "content-type: text/plain\r\n", b"x".to_vec()),
        ("/nope", "", b"x".to_vec()),
    ];
    let server = Server::open();
    for (path, headers, body) in cases {
        let mut connection = server.connect();
        for late in [false, true] {
            begin_chunked(&mut connection, path, headers, &body);
            // As some clients send it: an instant after the rest, or with their next request.
            if !late {
                std::thread::sleep(std::time::Duration::from_millis(1));
                connection.send(b"0\r\n\r\n");
            }
            let reply = connection.reply();
            assert_eq!(reply.header("connection"), None);
            let end: &[u8] = if late { b"0\r\n\r\n" } else { b"" };
            let next = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
            connection.send(&[end, next].concat());
            let next = connection.try_reply().map(|reply| reply.status);
            assert_eq!(next, Some(204), "{path} {headers:?} {late}");
        }
    }
}

#[test]
fn a_body_that_nobody_reads_has_a_bound() {
    const BOUND: usize = 256 << 20;
    let server = Server::open();
    let mut connection = server.connect();
    connection.send(b"POST /nope HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000000\r\n\r\n");
    assert_eq!(connection.reply().status, 404);
    let piece = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while connection.try_send(&piece) {
        sent += piece.len();
        // What lies in the kernel's buffers comes on top.
        assert!(sent < BOUND + (64 << 20));
    }
    assert!(sent >= BOUND, "{sent}");
}
