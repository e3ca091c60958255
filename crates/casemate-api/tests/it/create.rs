//! Creating: what is answered, what reaches the node, what is left when it fails.

use std::time::Duration;

use casemate_catalog::Catalog;
use casemate_rpc::NodeError;
use casemate_store::{Sandboxes, Standing};
use casemate_types::SandboxId;

use crate::world::{World, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_create_answers_what_the_sdks_read() {
    let world = World::new().await;
    let body = r#"{"templateID":"base","metadata":{"a":"b"},"envVars":{"X":"1"},
        "allow_internet_access":true,"mcp":{"x":{}},"unknown":{"y":null}}"#;
    let answer = world.api("POST", "/v2/sandboxes").json(body).send().await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let body = answer.json();
    let id = SandboxId::parse(body["sandboxID"].as_str().unwrap()).unwrap();
    assert_eq!(id.as_str().len(), 21);
    assert_eq!(body["templateID"], world.node.template().as_str());
    assert_eq!(body["clientID"], "6532622b");
    assert_eq!(body["alias"], "base");
    assert_eq!(body["envdVersion"], "0.6.12");
    assert_eq!(body["domain"], "localhost:8080");
    assert!(body["trafficAccessToken"].is_null());
    let token = body["envdAccessToken"].as_str().unwrap();
    assert_eq!(world.node.access_token(&id).as_deref(), Some(token));
    let row = world.store.sandbox_by_id(&id).await.unwrap().unwrap();
    assert_eq!(row.timeout, Duration::from_secs(300));
    assert!(world.catalog.route_by_id(&id).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_that_nobody_names_is_configured_for_v2() {
    let world = World::with(|config| config.limits.life_seconds_default = 77).await;
    let sandbox = world.create("").await;
    let row = world.store.sandbox_by_id(&sandbox).await.unwrap().unwrap();
    assert_eq!(row.timeout, Duration::from_secs(77));
}

#[tokio::test(flavor = "multi_thread")]
async fn v1_lives_fifteen_seconds_and_is_secured_whatever_it_says() {
    let world = World::new().await;
    let body = r#"{"templateID":"base","secure":false}"#;
    let answer = world.api("POST", "/sandboxes").json(body).send().await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let id = SandboxId::parse(answer.json()["sandboxID"].as_str().unwrap()).unwrap();
    assert!(answer.json()["envdAccessToken"].is_string());
    let row = world.store.sandbox_by_id(&id).await.unwrap().unwrap();
    assert_eq!(row.timeout, Duration::from_secs(15));
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_found_by_alias_id_and_tag() {
    let world = World::new().await;
    let id = world.node.template();
    for name in ["base", "BASE", " base ", "base:default", id.as_str()] {
        let body = format!(r#"{{"templateID":"{name}"}}"#);
        let answer = world.api("POST", "/v2/sandboxes").json(&body).send().await;
        assert_eq!(answer.status, 201, "{name}: {}", answer.text);
    }
    let check = async |name: &str, status: u16, message: &str| {
        let body = format!(r#"{{"templateID":"{name}"}}"#);
        let answer = world.api("POST", "/v2/sandboxes").json(&body).send().await;
        let found = answer.error(status);
        assert!(found.starts_with(message), "{name}: {found}");
    };
    check("nope", 404, "template 'nope' not found").await;
    check("first/base", 404, "template 'first/base' not found").await;
    check(
        "base:v2",
        404,
        "tag 'v2' does not exist for template 'base'",
    )
    .await;
    check("a/b/c", 400, "Invalid template reference: ").await;
    check("", 400, "Invalid template reference: ").await;
    check("../x", 400, "Invalid template reference: ").await;
    let id = format!("first/{id}");
    check(&id, 404, &format!("template '{id}' not found")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_or_not_built_is_named() {
    let world = World::new().await;
    let check = async |more: &str, status: u16, message: &str| {
        let found = world.try_create(more).await.error(status);
        assert!(found.contains(message), "{more}: {found}");
    };
    check(r#","timeout":0"#, 400, "Timeout must be greater than 0").await;
    check(
        r#","timeout":86401"#,
        400,
        "Timeout cannot be greater than 24 hours",
    )
    .await;
    check(
        r#","autoPause":true,"autoPauseMemory":false,"autoResume":{"enabled":true}"#,
        400,
        "autoPauseMemory=false (filesystem-only auto-pause) cannot be combined with autoResume",
    )
    .await;
    check(
        r#","autoPauseMemory":false"#,
        400,
        "autoPauseMemory=false only applies",
    )
    .await;
    check(
        r#","volumeMounts":[{"name":"a","path":"/a"}]"#,
        400,
        "Volume mounts are not",
    )
    .await;
    check(
        r#","iam":{"tokens":{"a":{}}}"#,
        400,
        "Sandbox IAM workload tokens",
    )
    .await;
    let network = [
        (
            r#""maskRequestHost":"a b""#,
            400,
            "mask request host is not valid: a b",
        ),
        (
            r#""maskRequestHost":"bücher.de""#,
            400,
            "mask request host 'bücher.de' is not ASCII.",
        ),
        (r#""httpsPorts":[443,49983]"#, 400, "httpsPorts has 49983"),
        (r#""dnsServers":["::1"]"#, 400, "invalid DNS server ::1"),
        (
            r#""dnsServers":["10.0.0.53"]"#,
            400,
            "DNS server 10.0.0.53 is in a range",
        ),
        (
            r#""allowOut":["a.*.com"],"denyOut":["0.0.0.0/0"]"#,
            400,
            "invalid allowed address a.*.com",
        ),
        (r#""allowOut":["a.com"]"#, 400, "ALL_TRAFFIC"),
        (r#""denyOut":["a.com"]"#, 400, "invalid denied CIDR a.com"),
        (r#""rules":{"a.com":[]}"#, 400, "Network transform rules"),
        (
            r#""egressProxy":{"address":"a:1"}"#,
            403,
            "Egress proxy (network.egressProxy)",
        ),
    ];
    for (field, status, message) in network {
        check(&format!(r#","network":{{{field}}}"#), status, message).await;
    }
    assert_eq!(world.node.creates(), 0);
    let defaults = r#","autoPause":false,"autoPauseMemory":true,"autoResume":{"enabled":false},
        "iam":{"tokens":{}},"volumeMounts":[],"network":{"allowPublicTraffic":true,
        "httpsPorts":[],"dnsServers":["8.8.8.8"],"egressProxy":null,"rules":{}}"#;
    world.create(defaults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_cannot_do_is_told_and_leaves_nothing() {
    let world = World::new().await;
    let full = NodeError::Full {
        what: "memory".into(),
    };
    let queue = NodeError::QueueFull { max: 1 };
    let unsupported = NodeError::Unsupported { why: "x".into() };
    let failed = NodeError::CreateFailed { why: "x".into() };
    let internal = NodeError::Internal { why: "x".into() };
    for (failure, status, code) in [
        (full, 503, "sandbox_capacity_unavailable"),
        (queue, 503, "sandbox_capacity_unavailable"),
        (unsupported, 503, "sandbox_no_compatible_node"),
        (NodeError::Unreachable, 503, "sandbox_capacity_unavailable"),
        (failed, 500, "sandbox_create_failed"),
        (internal, 500, "internal_server_error"),
    ] {
        world.node.fail_creates(Some(failure));
        let answer = world.try_create("").await;
        answer.error_code(status, code);
        assert!(answer.error(status).starts_with("Failed to place sandbox"));
        if status == 503 {
            assert_eq!(answer.header("should-retry"), Some("false"));
            assert_eq!(answer.header("retry-after"), None);
        }
        assert_eq!(world.control.sandbox_total(), 0);
        assert!(world.listed().await.is_empty());
    }
    world.node.fail_creates(None);
    world.create("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_takes_too_long_is_504_and_gone_once_it_is_done() {
    let world = World::with(|config| config.create_timeout = Duration::from_millis(100)).await;
    world.node.hold_creates();
    let answer = world.try_create("").await;
    answer.error_code(504, "sandbox_placement_timeout");
    assert_eq!(answer.header("should-retry"), Some("false"));
    assert_eq!(world.control.sandbox_total(), 0);
    world.node.release_creates();
    until("the late sandbox is ended", || async {
        world.node.creates() == 1 && world.node.running().is_empty()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(world.node.running().is_empty());
    assert!(world.listed().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_cannot_be_recorded_is_503_and_gone() {
    let world = World::new().await;
    rename(&world, "sandboxes", "hidden").await;
    let answer = world.try_create("").await;
    answer.error(503);
    assert_eq!(answer.header("should-retry"), Some("false"));
    until("the sandbox is ended again", || async {
        world.node.running().is_empty()
    })
    .await;
    assert_eq!(world.node.creates(), 1);
    assert_eq!(world.control.sandbox_total(), 0);
    rename(&world, "hidden", "sandboxes").await;
    assert!(world.listed().await.is_empty());
    world.ready().await;
    world.create("").await;
}

async fn rename(world: &World, from: &str, to: &str) {
    use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(world.store.path())
        .busy_timeout(Duration::from_secs(5));
    let mut connection = options.connect().await.unwrap();
    let order = format!("ALTER TABLE {from} RENAME TO {to}");
    sqlx::query(AssertSqlSafe(order))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_a_whole_sandbox() {
    let world = World::new().await;
    world.node.hold_creates();
    let call = world
        .api("POST", "/v2/sandboxes")
        .json(r#"{"templateID":"base"}"#);
    let client = tokio::spawn(call.send());
    until("the node has the order", || async {
        world.node.creates() == 1
    })
    .await;
    client.abort();
    assert!(client.await.is_err());
    world.node.release_creates();
    until("it is there, and recorded", || async {
        world.listed().await.len() == 1
    })
    .await;
    let id = world.node.running().remove(0);
    assert_eq!(world.status_of(&id).await, 200);
    assert!(world.catalog.route_by_id(&id).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_dies_while_it_is_recorded_is_not_listed_for_ever() {
    let world = World::new().await;
    for _ in 0..50 {
        let sandbox = world.create("").await;
        world.node.exit(&sandbox);
        until("its end is known", || async {
            world.status_of(&sandbox).await == 404
        })
        .await;
    }
    assert_eq!(world.control.sandbox_total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_creates_stop_at_the_limit() {
    let world = World::with(|config| config.limits.sandboxes_max = 5).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let call = world
            .api("POST", "/v2/sandboxes")
            .json(r#"{"templateID":"base"}"#);
        calls.spawn(call.send());
    }
    let mut made = 0;
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        if answer.status == 201 {
            made += 1;
            continue;
        }
        let message = answer.error(429);
        let start = "you have reached the maximum number of concurrent E2B sandboxes (5). ";
        assert!(message.starts_with(start), "{message}");
        assert_eq!(answer.header("should-retry"), Some("false"));
        assert_eq!(answer.header("retry-after"), None);
    }
    assert_eq!((made, world.node.running().len()), (5, 5));
    let (_, key) = world.other_team(Standing::Good).await;
    let other = world
        .call("POST", "/v2/sandboxes")
        .header("x-api-key", &key);
    assert_eq!(
        other.json(r#"{"templateID":"base"}"#).send().await.status,
        201
    );
    // An end makes room, whoever brings it about.
    let running = world.listed().await;
    world
        .api("DELETE", &format!("/sandboxes/{}", running[0]))
        .send()
        .await;
    world.create("").await;
    world.try_create("").await.error(429);
    world.node.exit(&SandboxId::parse(&running[1]).unwrap());
    until("room after an exit", || async {
        world.try_create("").await.status == 201
    })
    .await;
}
