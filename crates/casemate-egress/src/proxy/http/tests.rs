use super::*;

fn request(target: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

#[track_caller]
fn check(target: &str, fields: &[(&str, &str)], expected: Option<&str>) {
    let found = named(&request(target, fields)).ok();
    assert_eq!(found.as_ref().map(DomainName::as_str), expected);
}

#[test]
fn one_host_is_named() {
    let name = Some("example.com");
    check("/a?b", &[("host", "Example.COM")], name);
    check("/", &[("host", "example.com.:8080")], name);
    check("*", &[("host", "example.com")], name);
    check(
        "http://EXAMPLE.com:80/a",
        &[("host", "example.com:80")],
        name,
    );
    check("/", &[], None);
    check("http://example.com/", &[], None);
    check(
        "/",
        &[("host", "example.com"), ("host", "example.com")],
        None,
    );
    check("http://evil.net/", &[("host", "example.com")], None);
    check("http://example.com:81/", &[("host", "example.com")], None);
    check("https://example.com/", &[("host", "example.com")], None);
    for wrong in [
        "",
        "1.2.3.4",
        "[::1]",
        "example.com:",
        "example.com:80:80",
        "a@example.com",
        "example.com/x",
        "example.com, evil.net",
        "example.com\tevil.net",
        "b\u{fc}cher.de",
    ] {
        check("/", &[("host", wrong)], None);
    }
}

#[test]
fn bodies_have_one_length() {
    let fields =
        |more: &[(&'static str, &'static str)]| [&[("host", "example.com")], more].concat();
    let name = Some("example.com");
    check("/", &fields(&[("content-length", "3")]), name);
    check("/", &fields(&[("transfer-encoding", "Chunked")]), name);
    let (length, chunked) = (("content-length", "3"), ("transfer-encoding", "chunked"));
    for wrong in [
        [length, chunked],
        [length, length],
        [chunked, chunked],
        [("transfer-encoding", "gzip, chunked"), ("a", "b")],
        [("transfer-encoding", "xchunked"), ("a", "b")],
    ] {
        check("/", &fields(&wrong), None);
    }
    let mut old = request("/", &fields(&[chunked]));
    *old.version_mut() = Version::HTTP_10;
    assert!(named(&old).is_err());
    let mut tunnel = request("example.com:443", &fields(&[]));
    *tunnel.method_mut() = Method::CONNECT;
    assert!(named(&tunnel).is_err());
}

#[test]
fn a_server_gets_nothing_that_is_about_this_connection() {
    let fields = [
        ("host", "example.com"),
        ("connection", "Upgrade, HTTP2-Settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("expect", "100-continue"),
        ("x-own", "kept"),
    ];
    let mut asked = request("http://example.com/a?b=c", &fields);
    assert!(!prepare(&mut asked));
    assert_eq!(asked.uri(), "/a?b=c");
    let left: Vec<_> = asked
        .headers()
        .iter()
        .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
        .collect();
    let expected = [
        ("host", "example.com"),
        ("x-own", "kept"),
        ("connection", "close"),
    ];
    assert_eq!(left, expected);
}

#[test]
fn websockets_are_asked_for_by_both_fields() {
    let asks = |connection, upgrade| {
        let fields = [
            ("host", "a.com"),
            ("connection", connection),
            ("upgrade", upgrade),
        ];
        prepare(&mut request("/", &fields))
    };
    assert!(asks("keep-alive, Upgrade", "WebSocket"));
    assert!(!asks("keep-alive", "websocket"));
    assert!(!asks("upgrade", "websocket, h2c"));
    assert!(!asks("upgrade", "h2c"));
}
