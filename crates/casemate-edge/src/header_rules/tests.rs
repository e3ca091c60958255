//! Which requests ask for an upgrade, and what a head looks like on the other side.

use casemate_types::SandboxId;
use http::Request;

use super::*;

fn head(version: Version, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::get("http://user@h.test/a?b").version(version);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn an_upgrade_is_asked_for_by_both_fields() {
    #[track_caller]
    fn check(headers: &[(&str, &str)], expected: Option<&'static str>) {
        let expected = expected.map(|what| Upgrade::Http1(HeaderValue::from_static(what)));
        let asked = Upgrade::asked(&head(Version::HTTP_11, headers));
        assert_eq!(asked, expected, "{headers:?}");
    }
    let upgrade = ("connection", "Upgrade");
    check(&[upgrade, ("upgrade", "websocket")], Some("websocket"));
    check(
        &[("connection", "keep-alive, upgrade"), ("upgrade", "x/1")],
        Some("x/1"),
    );
    check(
        &[("connection", "keep-alive"), upgrade, ("upgrade", "x")],
        Some("x"),
    );
    check(&[("upgrade", "websocket")], None);
    check(&[upgrade], None);
    check(&[("connection", "upgraded"), ("upgrade", "x")], None);
    check(&[upgrade, ("upgrade", "h2c")], None);
    check(&[upgrade, ("upgrade", "H2C")], None);
}

#[test]
fn on_http2_only_a_websocket_by_connect_is_an_upgrade() {
    let mut connect = head(Version::HTTP_2, &[]);
    assert_eq!(Upgrade::asked(&connect), None);
    connect.method = Method::CONNECT;
    assert_eq!(Upgrade::asked(&connect), None);
    connect
        .extensions
        .insert(Protocol::from_static("connect-udp"));
    assert_eq!(Upgrade::asked(&connect), None);
    connect
        .extensions
        .insert(Protocol::from_static("websocket"));
    assert_eq!(Upgrade::asked(&connect), Some(Upgrade::Http2WebSocket));
}

#[test]
fn fields_of_one_hop_end_here() {
    let mut request = head(
        Version::HTTP_2,
        &[
            ("connection", "x-a, close"),
            ("x-a", "1"),
            ("x-b", "2"),
            ("transfer-encoding", "chunked"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAA"),
            ("te", "gzip;q=0.5"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ],
    );
    let target = SandboxTarget {
        sandbox: SandboxId::parse("iabc").unwrap(),
        port: 3000,
        shared_domain: None,
    };
    let outgoing = Outgoing {
        mask_host: None,
        host: "h.test",
        target: &target,
        upgrade: None,
        close: false,
        unbounded_body: true,
    };
    to_service(&mut request, &outgoing);
    let mut left: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    left.sort_unstable();
    assert_eq!(
        left,
        [
            "cookie: a=1; b=2",
            "host: h.test",
            "transfer-encoding: chunked",
            "x-b: 2",
        ]
    );
    assert_eq!(request.uri, "/a?b");
    assert_eq!(request.version, Version::HTTP_11);
}

#[test]
fn a_websocket_of_http2_becomes_one_of_http1_and_back() {
    let mut request = head(Version::HTTP_2, &[("sec-websocket-version", "13")]);
    request.method = Method::CONNECT;
    let target = SandboxTarget {
        sandbox: SandboxId::parse("iabc").unwrap(),
        port: 3000,
        shared_domain: None,
    };
    let outgoing = Outgoing {
        mask_host: None,
        host: "h.test",
        target: &target,
        upgrade: Some(&Upgrade::Http2WebSocket),
        close: true,
        unbounded_body: true,
    };
    to_service(&mut request, &outgoing);
    assert_eq!(request.method, Method::GET);
    assert_eq!(request.headers[UPGRADE], "websocket");
    assert_eq!(request.headers[CONNECTION], "upgrade");
    assert_eq!(request.headers[WEBSOCKET_KEY].len(), 24);
    assert!(!request.headers.contains_key(TRANSFER_ENCODING));

    let response = http::Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", "x")
        .header("sec-websocket-protocol", "chat");
    let mut response = response.body(()).unwrap().into_parts().0;
    switched(&mut response, &Upgrade::Http2WebSocket);
    assert_eq!(response.status, 200);
    assert_eq!(response.headers.len(), 1);
    assert_eq!(response.headers["sec-websocket-protocol"], "chat");
}
