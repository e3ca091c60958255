//! Looking, extending, shortening, ending.

use std::time::Duration;

use casemate_catalog::Catalog;
use casemate_rpc::NodePort;
use casemate_types::{SandboxId, Timestamp};
use serde_json::json;

use crate::world::{World, until};

async fn end_at(world: &World, sandbox: &SandboxId) -> Timestamp {
    let answer = world
        .api("GET", &format!("/sandboxes/{sandbox}"))
        .send()
        .await;
    answer.json()["endAt"].as_str().unwrap().parse().unwrap()
}

/// Seconds from now, rounded.
async fn left(world: &World, sandbox: &SandboxId) -> i64 {
    let left = end_at(world, sandbox).await.as_millisecond() - Timestamp::now().as_millisecond();
    (left + 500).div_euclid(1000)
}

#[tokio::test(flavor = "multi_thread")]
async fn details_have_every_field() {
    let world = World::new().await;
    let sandbox = world
        .create(r#","metadata":{"a":"b c"},"allow_internet_access":false,"network":{"allowOut":["8.8.8.8"]}"#)
        .await;
    let answer = world
        .api("GET", &format!("/sandboxes/{sandbox}"))
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let mut body = answer.json();
    let fields = body.as_object_mut().unwrap();
    for time in ["startedAt", "endAt"] {
        let text = fields.remove(time).unwrap();
        let text = text.as_str().unwrap();
        assert!(
            text.ends_with('Z') && text.parse::<Timestamp>().is_ok(),
            "{text}"
        );
    }
    assert_eq!(
        fields
            .remove("envdAccessToken")
            .unwrap()
            .as_str()
            .unwrap()
            .len(),
        64
    );
    let expected = json!({
        "templateID": world.node.template().as_str(), "sandboxID": sandbox.as_str(),
        "clientID": "6532622b", "alias": "base", "envdVersion": "0.6.12",
        "cpuCount": 2, "memoryMB": 512, "diskSizeMB": 10240, "state": "running",
        "metadata": {"a": "b c"}, "allowInternetAccess": false, "domain": "localhost:8080",
        "network": {"allowOut": ["8.8.8.8"]},
        "lifecycle": {"autoResume": false, "onTimeout": "kill"}, "volumeMounts": [],
    });
    assert_eq!(body, expected);
    let plain = world.create("").await;
    let body = world
        .api("GET", &format!("/sandboxes/{plain}"))
        .send()
        .await
        .json();
    assert!(body["allowInternetAccess"].is_null());
    assert!(body.get("metadata").is_none() && body.get("network").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_moves_the_deadline_both_ways_and_is_cut_at_the_longest_life() {
    let world = World::with(|config| config.limits.life_hours_max = 1).await;
    let sandbox = world.create("").await;
    let set = async |seconds: u64| {
        let call = world.api("POST", &format!("/sandboxes/{sandbox}/timeout"));
        call.json(&format!(r#"{{"timeout":{seconds}}}"#))
            .send()
            .await
    };
    for (seconds, expected) in [(600, 600), (60, 60), (7200, 3600)] {
        let answer = set(seconds).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
        assert!((left(&world, &sandbox).await - expected).abs() <= 1);
        let node = world.node.ends_at(&sandbox).unwrap();
        assert!(
            node.as_millisecond()
                .abs_diff(end_at(&world, &sandbox).await.as_millisecond())
                <= 1
        );
    }
    assert_eq!(set(0).await.status, 204);
    until("it is ended", || async { world.node.running().is_empty() }).await;
    assert_eq!(world.status_of(&sandbox).await, 404);
    set(10).await.error(404);
    let missing = world.api("POST", "/sandboxes/nonexistingsandbox/timeout");
    missing.json(r#"{"timeout":5}"#).send().await.error(404);
    let wrong = world
        .api("POST", "/sandboxes/iabc/timeout")
        .json(r#"{"timeout":-1}"#);
    wrong.send().await.error(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshing_only_extends() {
    let world = World::new().await;
    let sandbox = world.create(r#","timeout":5"#).await;
    let refresh = async |body: &str| {
        let call = world.api("POST", &format!("/sandboxes/{sandbox}/refreshes"));
        call.json(body).send().await
    };
    for (body, expected) in [
        ("", 15),
        (r#"{"duration":1}"#, 15),
        (r#"{"duration":60}"#, 60),
        ("{}", 60),
    ] {
        assert_eq!(refresh(body).await.status, 204);
        assert!(
            (left(&world, &sandbox).await - expected).abs() <= 1,
            "{body}"
        );
    }
    refresh(r#"{"duration":3601}"#).await.error(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_extends_and_never_shortens() {
    let world = World::new().await;
    let sandbox = world.create(r#","timeout":100"#).await;
    let made = world
        .api("GET", &format!("/sandboxes/{sandbox}"))
        .send()
        .await
        .json();
    let before = end_at(&world, &sandbox).await;
    let connect = async |version: &str, id: &str, body: &str| {
        let call = world.api("POST", &format!("{version}/sandboxes/{id}/connect"));
        call.json(body).send().await
    };
    let answer = connect("", sandbox.as_str(), r#"{"timeout":50,"memory":false}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["envdAccessToken"], made["envdAccessToken"]);
    assert_eq!(end_at(&world, &sandbox).await, before);
    assert_eq!(connect("/v2", sandbox.as_str(), "").await.status, 200);
    assert!((left(&world, &sandbox).await - 300).abs() <= 1);
    assert_eq!(
        connect("/v2", sandbox.as_str(), r#"{"timeout":400}"#)
            .await
            .status,
        200
    );
    assert!((left(&world, &sandbox).await - 400).abs() <= 1);
    connect("", sandbox.as_str(), "").await.error(400);
    connect("", sandbox.as_str(), "{}").await.error(400);
    let long = connect("/v2", sandbox.as_str(), r#"{"timeout":86401}"#).await;
    assert_eq!(long.error(400), "Timeout cannot be greater than 24 hours");
    connect("/v2", "nonexistingsandbox", "").await.error(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_ends_it_everywhere_and_twice_is_404() {
    let world = World::new().await;
    let sandbox = world.create("").await;
    let path = format!("/sandboxes/{sandbox}");
    let answer = world.api("DELETE", &path).send().await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    assert!(world.node.running().is_empty());
    assert!(world.catalog.route_by_id(&sandbox).await.unwrap().is_none());
    world.api("DELETE", &path).send().await.error(404);
    assert!(world.listed().await.is_empty());
    let message = world
        .api("DELETE", "/sandboxes/nonexistingsandbox")
        .send()
        .await
        .error(404);
    assert!(message.contains("\"nonexistingsandbox\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_the_same_time_all_succeed() {
    let world = World::new().await;
    let sandbox = world.create("").await;
    // Creates and kills are in order at the fake: kills wait while creates are held.
    world.node.hold_creates();
    let kill = || world.api("DELETE", &format!("/sandboxes/{sandbox}"));
    let kills: Vec<_> = (0..5).map(|_| tokio::spawn(kill().send())).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.node.release_creates();
    for kill in kills {
        assert_eq!(kill.await.unwrap().status, 204);
    }
}

/// Its route goes after its processes; who asks in between is to know.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_known_of_one_that_is_being_killed() {
    let world = World::new().await;
    let (sandbox, other) = (world.create("").await, world.create("").await);
    assert!(!world.control.is_being_killed(&sandbox));
    world.node.hold_creates();
    let kill = world.api("DELETE", &format!("/sandboxes/{sandbox}"));
    let kill = tokio::spawn(kill.send());
    until("the kill began", || async {
        world.control.is_being_killed(&sandbox)
    })
    .await;
    assert!(world.catalog.route_by_id(&sandbox).await.unwrap().is_some());
    assert!(!world.control.is_being_killed(&other));
    world.node.release_creates();
    assert_eq!(kill.await.unwrap().status, 204);
    assert!(!world.control.is_being_killed(&sandbox));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_that_the_node_cannot_hear_can_be_tried_again() {
    let world = World::new().await;
    let sandbox = world.create("").await;
    world.node.disconnect();
    let path = format!("/sandboxes/{sandbox}");
    let refused = world.api("DELETE", &path).send().await;
    refused.error_code(503, "sandbox_node_unreachable");
    assert_eq!(world.status_of(&sandbox).await, 200);
    world.node.reconnect();
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_of_what_ends_slowly_can_be_tried_again() {
    let world = World::new().await;
    let sandbox = world.create("").await;
    world.node.end_slowly(&sandbox);
    let path = format!("/sandboxes/{sandbox}");
    let refused = world.api("DELETE", &path).send().await;
    refused.error_code(503, "sandbox_still_ending");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("should-retry"), None);
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_sandbox_is_gone_within_a_second() {
    let world = World::new().await;
    let sandbox = world.create(r#","timeout":1"#).await;
    assert_eq!(world.status_of(&sandbox).await, 200);
    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert_eq!(world.status_of(&sandbox).await, 404);
    until("the node ended it", || async {
        world.node.running().is_empty()
    })
    .await;
    until("the count is right", || async {
        world.control.sandbox_total() == 0
    })
    .await;
    assert!(
        world
            .node
            .kill(&sandbox, casemate_types::EndReason::Killed)
            .await
            .is_err()
    );
}
