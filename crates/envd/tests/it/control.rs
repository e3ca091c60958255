use serde_json::{Value, json};

use crate::http::Reply;
use crate::server::{Server, TOKEN};
use crate::streams::{refused, run, start};

fn init(server: &Server, body: &str) -> Reply {
    let reply = server.request("POST", "/init", &[], body.as_bytes());
    assert_eq!(reply.header("x-envd-version"), Some("0.6.13"));
    reply
}

fn envs(server: &Server, token: &str) -> Value {
    server
        .request("GET", "/envs", &[("x-access-token", token)], b"")
        .expect(200)
        .json()
}

/// Seconds before now, so near that no clock is set by it.
fn shortly_before(seconds: f32) -> String {
    let date = std::process::Command::new("date")
        .args(["-u", "-d", &format!("{} seconds ago", seconds)])
        .arg("+%Y-%m-%dT%H:%M:%S.%NZ")
        .output()
        .unwrap();
    assert!(date.status.success());
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

#[test]
fn setting_up_for_the_first_time() {
    let server = Server::open();
    assert_eq!(
        init(&server, "").expect(204).header("cache-control"),
        Some("no-store")
    );
    init(
        &server,
        r#"{"accessToken":"tok","envVars":{"A":"1","E2B_SANDBOX":"x"},"new":1}"#,
    )
    .expect(204);
    server.get("/envs").expect(401);
    assert_eq!(
        envs(&server, "tok"),
        json!({"A": "1", "E2B_SANDBOX": "true"})
    );
    // The same again changes nothing; only variables that are sent replace.
    init(&server, r#"{"accessToken":"tok"}"#).expect(204);
    assert_eq!(envs(&server, "tok")["A"], "1");
    init(&server, r#"{"accessToken":"tok","envVars":{"B":"2"}}"#).expect(204);
    assert_eq!(
        envs(&server, "tok"),
        json!({"B": "2", "E2B_SANDBOX": "true"})
    );
    let reset = init(&server, "{}").expect(401);
    assert_eq!(reset.text().trim_end(), "access token reset not authorized");
    let other = init(&server, r#"{"accessToken":"other"}"#).expect(401);
    assert_eq!(other.text().trim_end(), "access token validation failed");
}

#[test]
fn the_platform_s_word_decides() {
    let secured = Server::secured();
    init(&secured, "{}").expect(401);
    init(&secured, r#"{"accessToken":"guess"}"#).expect(401);
    init(&secured, &format!(r#"{{"accessToken":"{TOKEN}"}}"#)).expect(204);
    secured.get("/envs").expect(401);
    // A program inside cannot lock the owner out of a sandbox without a token.
    let unsecured = Server::unsecured();
    init(&unsecured, r#"{"accessToken":"mine"}"#).expect(401);
    init(&unsecured, "{}").expect(204);
    unsecured.get("/envs").expect(200);
}

#[test]
fn malformed_calls() {
    let server = Server::open();
    for body in [
        "{",
        "[]",
        r#"{"accessToken":""}"#,
        r#"{"accessToken":"a\\b"}"#,
        r#"{"accessToken":"\u0061"}"#,
        r#"{"timestamp":"yesterday"}"#,
        r#"{"hyperloopIP":"example.org"}"#,
        r#"{"volumeMounts":[{}]}"#,
    ] {
        assert!(init(&server, body).expect(400).body.is_empty(), "{body}");
    }
    let mounts = r#"{"volumeMounts":[{"nfs_target":"10.0.0.1:/v","path":"/v"}]}"#;
    let reply = init(&server, mounts).expect(400);
    assert!(reply.text().starts_with("failed to setup NFS volumes: "));
    init(
        &server,
        r#"{"volumeMounts":[],"caBundle":"","lifecycleID":"x"}"#,
    )
    .expect(204);
    // Nothing of that took effect.
    server.get("/envs").expect(200);
}

#[test]
fn defaults_for_users_and_directories() {
    let server = Server::open();
    init(
        &server,
        r#"{"defaultUser":"daemon","defaultWorkdir":"/usr"}"#,
    )
    .expect(204);
    init(&server, r#"{"defaultUser":"","defaultWorkdir":""}"#).expect(204);
    assert_eq!(
        run(&server, "id -un; pwd", &json!({})).out(),
        "daemon\n/usr\n"
    );
    init(&server, r#"{"defaultUser":"no-such-user"}"#).expect(204);
    let (code, message) = refused(start(&server, "true", &json!({})));
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("unauthenticated", "invalid default user: 'no-such-user'")
    );
}

#[test]
fn late_calls_change_nothing() {
    let server = Server::open();
    let (older, newer) = (shortly_before(2.0), shortly_before(0.5));
    let call = |at: &str, value: &str| {
        let body = json!({"timestamp": at, "envVars": {"A": value}});
        init(&server, &body.to_string()).expect(204);
        server.get("/envs").expect(200).json()["A"].clone()
    };
    assert_eq!(call(&newer, "new"), "new");
    assert_eq!(call(&older, "old"), "new");
    assert_eq!(call(&newer, "same"), "same");
}

#[test]
fn metrics() {
    let server = Server::open();
    server.get("/metrics").expect(200);
    let reply = server.get("/metrics").expect(200);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let metrics = reply.json();
    for name in [
        "ts",
        "cpu_count",
        "mem_total",
        "mem_used",
        "mem_cache",
        "disk_total",
        "disk_used",
    ] {
        assert!(metrics[name].as_u64().unwrap() > 0, "{name}: {metrics}");
    }
    let percent = metrics["cpu_used_pct"].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&percent));
    assert_eq!(
        metrics["mem_total_mib"].as_u64().unwrap(),
        metrics["mem_total"].as_u64().unwrap() >> 20
    );
}

#[test]
fn freezing_is_answered_and_not_observed() {
    let server = Server::open();
    let post = |path: &str| server.request("POST", path, &[], b"");
    assert!(post("/freeze").expect(204).body.is_empty());
    post("/freeze?maxWaitMs=0").expect(204);
    let frozen = post("/freeze?maxWaitMs=50&mode=hierarchy")
        .expect(200)
        .json();
    assert_eq!(
        frozen,
        json!({"mode": "hierarchy", "visited": 0, "allowlisted": 0, "preFrozen": 0,
               "requested": 0, "frozen": 0, "notFrozen": 0, "failed": 0, "unobservable": 2,
               "truncated": false, "sweepMs": 0, "waitMs": 0})
    );
    assert_eq!(
        post("/freeze?maxWaitMs=1&mode=x").expect(200).json()["mode"],
        "legacy"
    );
    post("/unfreeze").expect(204);
    assert_eq!(post("/collapse").expect(200).json()["collapsed"], 0);
}

#[test]
fn upgrades_are_refused_in_clear_words() {
    let server = Server::open();
    let early = server.request("POST", "/upgrade", &[], b"").expect(409);
    assert_eq!(early.text().trim_end(), "envd not initialized");
    init(&server, "{}").expect(204);
    let other = [("x-envd-upgrade-bin", "/bin/sh")];
    server.request("POST", "/upgrade", &other, b"").expect(400);
    let reply = server.request("POST", "/upgrade", &[], b"").expect(501);
    assert!(reply.text().contains("not available"));
}
