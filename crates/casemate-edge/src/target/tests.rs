//! The routing tables: host forms, header forms, and which wins.

use super::*;

const ID: &str = "isv6ril5xadwn1k9t2jye";

fn hosts() -> OwnHosts {
    OwnHosts::new(
        "demo.example.com:8443",
        &["box-7".to_owned(), "10-web.internal".to_owned()],
    )
}

fn headers(id: Option<&str>, port: Option<&str>) -> HeaderMap {
    let mut map = HeaderMap::new();
    if let Some(id) = id {
        map.insert(SANDBOX_ID, id.parse().unwrap());
    }
    if let Some(port) = port {
        map.insert(SANDBOX_PORT, port.parse().unwrap());
    }
    map
}

fn sandbox(id: &str, port: u64, shared: Option<&str>) -> Result<Target, TargetError> {
    Ok(Target::Sandbox(SandboxTarget {
        sandbox: SandboxId::parse(id).unwrap(),
        port,
        shared_domain: shared.map(str::to_owned),
    }))
}

#[track_caller]
fn check(host: &str, headers: HeaderMap, expected: Result<Target, TargetError>) {
    assert_eq!(hosts().target(host, &headers), expected, "host {host:?}");
}

#[test]
fn the_first_label_names_port_and_sandbox() {
    let none = || headers(None, None);
    for host in [
        format!("49983-{ID}.demo.example.com"),
        format!("49983-{ID}.demo.example.com:8443"),
        format!("49983-{ID}-6532622b.demo.example.com"),
        format!("49983-{ID}-a-b-c.anything.else"),
        format!("49983-{ID}.localhost"),
        format!("49983-{}.demo.example.com", ID.to_uppercase()),
        format!("49983-{ID}.demo.example.com."),
    ] {
        check(&host, none(), sandbox(ID, 49983, None));
    }
    check("3000-abc.x", none(), sandbox("abc", 3000, None));
    check("99999-abc.x", none(), sandbox("abc", 99999, None));
    check("0-abc.x", none(), sandbox("abc", 0, None));
}

#[test]
fn a_host_that_begins_like_a_sandbox_and_is_none_is_refused() {
    let none = || headers(None, None);
    check("3000-a_b.x", none(), Err(TargetError::InvalidId));
    check("3000-.x", none(), Err(TargetError::InvalidId));
    check("3000--abc.x", none(), Err(TargetError::InvalidId));
    check(
        "99999999999999999999999-abc.x",
        none(),
        Err(TargetError::InvalidPort),
    );
}

#[test]
fn every_other_host_is_the_api() {
    for host in [
        "api.demo.example.com",
        "demo.example.com",
        "localhost",
        "localhost:8080",
        "127.0.0.1:8080",
        "[::1]:8080",
        "::1",
        "",
        "box-7",
        "10-web.internal",
        "web-3000.example.com",
        "3000.example.com",
        "3000-abc",
        "-abc.example.com",
        "sandbox.demo.example.com",
        "evil.example.org",
    ] {
        check(host, headers(None, None), Ok(Target::Api));
    }
}

#[test]
fn routing_headers_count_on_allowed_hosts_only() {
    let both = || headers(Some(ID), Some("49983"));
    for host in [
        "localhost",
        "localhost:3002",
        "LOCALHOST",
        "127.0.0.1:8080",
        "203.0.113.9",
        "[::1]:8080",
        "[2001:db8::7]",
        "demo.example.com",
        "demo.example.com:8443",
        "box-7:8080",
        "10-web.internal",
    ] {
        check(host, both(), sandbox(ID, 49983, None));
    }
    for host in ["api.demo.example.com", "API.demo.example.com:8443"] {
        check(host, both(), Ok(Target::Api));
    }
    for host in [
        "evil.example.org",
        "api.localhost",
        "sandbox.",
        "localhost.evil",
    ] {
        check(host, both(), Ok(Target::Api));
    }
}

#[test]
fn the_shared_host_keeps_what_follows_it() {
    let both = || headers(Some(ID), Some("3000"));
    check(
        "sandbox.demo.example.com",
        both(),
        sandbox(ID, 3000, Some("demo.example.com")),
    );
    check(
        "sandbox.demo.example.com:8443",
        both(),
        sandbox(ID, 3000, Some("demo.example.com:8443")),
    );
}

#[test]
fn headers_win_over_the_host_where_they_count_and_lose_elsewhere() {
    let both = || headers(Some("other"), Some("1"));
    check("10-web.internal", both(), sandbox("other", 1, None));
    check(
        "3000-abc.demo.example.com",
        both(),
        sandbox("abc", 3000, None),
    );
}

#[test]
fn half_or_broken_headers_are_refused_where_they_count() {
    let cases = [
        (headers(Some(ID), None), TargetError::MissingHeader),
        (headers(None, Some("80")), TargetError::MissingHeader),
        (headers(Some(ID), Some("http")), TargetError::InvalidPort),
        (headers(Some(ID), Some("-1")), TargetError::InvalidPort),
        (headers(Some(ID), Some("+1")), TargetError::InvalidPort),
        (headers(Some(ID), Some("")), TargetError::InvalidPort),
        (headers(Some("../etc"), Some("80")), TargetError::InvalidId),
        (headers(Some("ABC"), Some("80")), TargetError::InvalidId),
        (headers(Some(""), Some("80")), TargetError::InvalidId),
    ];
    for (map, error) in cases {
        check("localhost", map.clone(), Err(error));
        check("evil.example.org", map, Ok(Target::Api));
    }
}
