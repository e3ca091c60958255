//! Lifecycle events, from what happens to the answers.

use std::time::Duration;

use casemate_store::Standing;
use casemate_types::Timestamp;
use serde_json::{Value, json};

use crate::world::{World, until};

async fn events(world: &World, path: &str) -> Vec<Value> {
    let answer = world.api("GET", path).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json().as_array().unwrap().clone()
}

async fn of_count(world: &World, path: &str, count: usize) -> Vec<Value> {
    until("events are kept", || async {
        events(world, path).await.len() == count
    })
    .await;
    events(world, path).await
}

fn words(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["event_label"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandboxs_life_is_told_in_order() {
    let mut world = World::new().await;
    let sandbox = world.create("").await;
    let path = format!("/sandboxes/{sandbox}");
    let timeout = world.api("POST", &format!("{path}/timeout"));
    assert_eq!(timeout.json(r#"{"timeout":100}"#).send().await.status, 204);
    let network = world.api("PUT", &format!("{path}/network"));
    assert_eq!(
        network
            .json(r#"{"denyOut":["10.0.0.0/8"]}"#)
            .send()
            .await
            .status,
        204
    );
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
    let list = format!("/events/sandboxes/{sandbox}");
    let told = of_count(&world, &format!("{list}?orderAsc=true"), 4).await;
    assert_eq!(words(&told), ["create", "update", "update", "kill"]);
    assert_eq!(told[1]["event_data"]["changed"], "timeout");
    assert!(told[1]["event_data"]["end_at"].is_string());
    assert_eq!(told[2]["event_data"], json!({"changed": "network"}));
    assert_eq!(told[3]["event_data"], json!({"reason": "killed"}));
    let first = &told[0];
    assert_eq!(first["type"], "sandbox.lifecycle.created");
    assert_eq!(
        (&first["version"], &first["event_category"]),
        (&json!("v2"), &json!("lifecycle"))
    );
    assert_eq!(first["sandbox_id"], sandbox.as_str());
    assert_eq!(first["sandbox_team_id"], world.team.as_str());
    assert_eq!(first["sandbox_template_id"], world.node.template().as_str());
    assert_eq!(first["events_ttl_days"], 7);
    assert!(first["event_data"].is_null() && first["timestamp"].is_string());
    let one = |name: &str| told.iter().all(|event| event[name] == first[name]);
    assert!(one("sandbox_execution_id") && one("sandbox_build_id") && !one("id"));
    world.restart().await;
    let newest = events(&world, &format!("{list}?limit=2&offset=1")).await;
    assert_eq!(words(&newest), ["update", "update"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_nobody_asked_for_say_why() {
    let world = World::new().await;
    let exited = world.create("").await;
    world.node.exit(&exited);
    let told = of_count(&world, &format!("/events/sandboxes/{exited}"), 2).await;
    assert_eq!(told[0]["event_data"], json!({"reason": "exited"}));
    let expired = world.create(r#","timeout":1"#).await;
    let told = of_count(&world, &format!("/events/sandboxes/{expired}"), 2).await;
    assert_eq!(told[0]["event_data"], json!({"reason": "expired"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_of_a_paused_one_is_told_with_its_own_time() {
    let world = World::new().await;
    let sandbox = world.create("").await;
    let pause = world.api("POST", &format!("/sandboxes/{sandbox}/pause"));
    assert_eq!(pause.json("{}").send().await.status, 204);
    let rested = Duration::from_millis(100);
    tokio::time::sleep(rested).await;
    world.node.lose_processes(&sandbox);
    let list = format!("/events/sandboxes/{sandbox}?orderAsc=true");
    let told = of_count(&world, &list, 3).await;
    assert_eq!(words(&told), ["create", "pause", "pause"]);
    assert_eq!(told[2]["event_data"]["kept"], "files");
    let at = |event: &Value| event["timestamp"].as_str().unwrap().parse::<Timestamp>();
    // Half of it: the wall clock is not the one that counted.
    assert!(at(&told[2]).unwrap() - rested / 2 > at(&told[1]).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_is_moved_in_a_loop_does_not_fill_the_history() {
    let world = World::new().await;
    let sandbox = world.create("").await;
    let path = format!("/sandboxes/{sandbox}");
    for _ in 0..100 {
        let timeout = world.api("POST", &format!("{path}/timeout"));
        assert_eq!(timeout.json(r#"{"timeout":100}"#).send().await.status, 204);
    }
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
    let list = format!("/events/sandboxes/{sandbox}?limit=100");
    until("its end is kept", || async {
        events(&world, &list)
            .await
            .first()
            .is_some_and(|e| e["event_label"] == "kill")
    })
    .await;
    // A round may end meanwhile, and a new one begin.
    let count = events(&world, &list).await.len();
    assert!((32..=62).contains(&count), "{count}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_reads_its_own_events_and_wrong_questions_are_refused() {
    let world = World::new().await;
    let (one, two) = (world.create("").await, world.create("").await);
    let told = of_count(&world, "/events/sandboxes", 2).await;
    let ids: Vec<_> = told
        .iter()
        .map(|event| event["sandbox_id"].as_str().unwrap())
        .collect();
    assert!(ids.contains(&one.as_str()) && ids.contains(&two.as_str()));
    assert!(events(&world, "/events/sandboxes/inobody").await.is_empty());
    let (_, key) = world.other_team(Standing::Good).await;
    for path in [
        "/events/sandboxes".into(),
        format!("/events/sandboxes/{one}"),
    ] {
        let call = world.call("GET", &path).header("x-api-key", &key);
        assert_eq!(call.send().await.text, "[]");
    }
    for query in ["limit=0", "limit=101", "offset=-1", "orderAsc=1"] {
        let path = format!("/events/sandboxes?{query}");
        world.api("GET", &path).send().await.error(400);
    }
}
