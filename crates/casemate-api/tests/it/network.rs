//! `PUT /sandboxes/{sandboxID}/network`.

use casemate_types::SandboxId;
use serde_json::Value;

use crate::world::{Answer, World};

async fn put(world: &World, sandbox: &SandboxId, body: &str) -> Answer {
    let call = world.api("PUT", &format!("/sandboxes/{sandbox}/network"));
    call.json(body).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_replaces_the_rules_and_an_empty_one_clears_them() {
    let world = World::new().await;
    let sandbox = world.create(r#","network":{"denyOut":["1.1.1.1"]}"#).await;
    assert_eq!(world.node.policy(&sandbox).unwrap().deny.len(), 1);
    let body = r#"{"allowOut":["8.8.8.8"],"denyOut":["0.0.0.0/0"]}"#;
    assert_eq!(put(&world, &sandbox, body).await.status, 204);
    let policy = world.node.policy(&sandbox).unwrap();
    assert_eq!((policy.allow.len(), policy.deny.len()), (1, 1));
    let shown = world
        .api("GET", &format!("/sandboxes/{sandbox}"))
        .send()
        .await
        .json();
    assert_eq!(shown["network"]["allowOut"][0], "8.8.8.8");
    for empty in ["{}", ""] {
        assert_eq!(put(&world, &sandbox, empty).await.status, 204);
        assert!(world.node.policy(&sandbox).unwrap().is_open());
    }
    let shown = world
        .api("GET", &format!("/sandboxes/{sandbox}"))
        .send()
        .await
        .json();
    assert!(shown.get("network").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn internet_access_that_is_not_said_is_cleared_too() {
    let world = World::new().await;
    let sandbox = world.create(r#","allow_internet_access":false"#).await;
    for (body, open, shown) in [
        ("{}", true, Value::Null),
        (r#"{"allow_internet_access":false}"#, false, false.into()),
        (r#"{"denyOut":[]}"#, true, Value::Null),
        (r#"{"allow_internet_access":true}"#, true, true.into()),
    ] {
        assert_eq!(put(&world, &sandbox, body).await.status, 204);
        assert_eq!(
            world.node.policy(&sandbox).unwrap().is_open(),
            open,
            "{body}"
        );
        let call = world.api("GET", &format!("/sandboxes/{sandbox}"));
        assert_eq!(
            call.send().await.json()["allowInternetAccess"],
            shown,
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_and_name_servers_reach_the_node_and_are_shown() {
    let world = World::new().await;
    let asked = r#""allowOut":["*.Example.com"],"denyOut":["0.0.0.0/0"],"dnsServers":["1.1.1.1"]"#;
    let created = format!(r#","network":{{{asked}}}"#);
    let sandbox = world.create(&created).await;
    let policy = world.node.policy(&sandbox).unwrap();
    assert_eq!(policy.domains[0].to_string(), "*.example.com");
    assert_eq!(policy.dns_servers[0].to_string(), "1.1.1.1");
    let shown = world.api("GET", &format!("/sandboxes/{sandbox}"));
    let shown = shown.send().await.json();
    assert_eq!(shown["network"]["allowOut"][0], "*.Example.com");
    assert_eq!(shown["network"]["dnsServers"][0], "1.1.1.1");
    assert_eq!(put(&world, &sandbox, "{}").await.status, 204);
    assert!(world.node.policy(&sandbox).unwrap().domains.is_empty());
    let again = format!("{{{asked}}}");
    assert_eq!(put(&world, &sandbox, &again).await.status, 204);
    assert_eq!(world.node.policy(&sandbox).unwrap(), policy);
}

#[tokio::test(flavor = "multi_thread")]
async fn name_servers_in_a_range_that_the_operator_opens_are_taken() {
    let opened = vec!["10.0.0.0/24".parse().unwrap()];
    let world = World::with(|config| config.allow_ranges = opened).await;
    let sandbox = world
        .create(r#","network":{"dnsServers":["10.0.0.53"]}"#)
        .await;
    let body = r#"{"dnsServers":["10.0.1.53"]}"#;
    put(&world, &sandbox, body).await.error(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_updates_change_nothing() {
    let world = World::new().await;
    let sandbox = world.create(r#","network":{"denyOut":["1.1.1.1"]}"#).await;
    for (body, status, message) in [
        (r#"{"denyOut":["a.com"]}"#, 400, "invalid denied CIDR a.com"),
        (r#"{"allowOut":["a.com"]}"#, 400, "ALL_TRAFFIC"),
        (r#"{"rules":{"a.com":[]}}"#, 400, "Network transform rules"),
        (
            r#"{"egressProxy":{"address":"a:1"}}"#,
            403,
            "Egress proxy (egressProxy) is not",
        ),
        (r#"{"allowOut":null}"#, 400, "/allowOut"),
        (
            r#"{"dnsServers":["127.0.0.53"]}"#,
            400,
            "DNS server 127.0.0.53 is in a range that sandboxes cannot reach",
        ),
    ] {
        let found = put(&world, &sandbox, body).await.error(status);
        assert!(found.contains(message), "{body}: {found}");
    }
    for (field, value) in [
        ("allowPublicTraffic", "false"),
        ("maskRequestHost", r#""a.com""#),
        ("httpsPorts", "[443]"),
    ] {
        let body = format!(r#"{{"denyOut":[],"{field}":{value}}}"#);
        let found = put(&world, &sandbox, &body).await.error(400);
        let words = "is set when a sandbox is created and cannot be changed";
        assert!(found.contains(&format!("\"/{field}\": {words}")), "{found}");
    }
    assert_eq!(world.node.policy(&sandbox).unwrap().deny.len(), 1);
    let gone = SandboxId::parse("nonexistingsandbox").unwrap();
    put(&world, &gone, "{}").await.error(404);
}
