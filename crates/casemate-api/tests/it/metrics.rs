//! Figures of sandboxes and teams, from the node's samples to the answers.

use std::time::Duration;

use casemate_store::Standing;
use casemate_types::{SandboxId, Timestamp, Usage};
use serde_json::{Value, json};

use crate::world::{World, until};

fn usage(cpu_used_percent: f64) -> Usage {
    Usage {
        vcpus: 2,
        cpu_used_percent,
        memory_used_bytes: 100 << 20,
        memory_total_bytes: 512 << 20,
        memory_cache_bytes: 7 << 20,
        disk_used_bytes: 4096,
        disk_total_bytes: 10 << 30,
    }
}

async fn metrics(world: &World, sandbox: &SandboxId, query: &str) -> Vec<Value> {
    let path = format!("/sandboxes/{sandbox}/metrics{query}");
    let answer = world.api("GET", &path).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json().as_array().unwrap().clone()
}

/// Sends samples at these seconds before now and waits until the last is there.
async fn sampled(world: &World, sandbox: &SandboxId, seconds: &[i64]) -> Timestamp {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    for (number, before) in (1..).zip(seconds) {
        let at = now - Duration::from_secs(before.unsigned_abs());
        world.node.sample(sandbox, at, usage(f64::from(number)));
    }
    until("samples are kept", || async {
        metrics(world, sandbox, "").await.len() == seconds.len()
    })
    .await;
    now
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_of_a_sandbox_are_read_in_order_and_in_range() {
    let world = World::new().await;
    let sandbox = world.create("").await;
    assert!(metrics(&world, &sandbox, "").await.is_empty());
    let now = sampled(&world, &sandbox, &[20, 10, 0]).await;
    let all = metrics(&world, &sandbox, "").await;
    let first = now - Duration::from_secs(20);
    let expected = json!({
        "timestamp": first, "timestampUnix": first.as_second(), "cpuCount": 2, "cpuUsedPct": 1.0,
        "memUsed": 100 << 20, "memTotal": 512 << 20, "memCache": 7 << 20,
        "diskUsed": 4096, "diskTotal": 10_u64 << 30,
    });
    assert_eq!(all[0], expected);
    let unix = now.as_second();
    for (query, expected) in [
        (format!("?start={}", unix - 10), vec![2.0, 3.0]),
        (format!("?end={}", unix - 10), vec![1.0, 2.0]),
        (format!("?start={}&end={}", unix - 15, unix - 5), vec![2.0]),
        (format!("?start=0&end={}", unix - 1000), vec![]),
        (format!("?start={}", unix + 1000), vec![]),
    ] {
        let found = metrics(&world, &sandbox, &query).await;
        let cpu = found.iter().map(|m| m["cpuUsedPct"].as_f64().unwrap());
        assert_eq!(cpu.collect::<Vec<_>>(), expected, "{query}");
    }
    let until_the_end_of_time = format!("?start=0&end={}", i64::MAX);
    assert!(
        !metrics(&world, &sandbox, &until_the_end_of_time)
            .await
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_range_has_long_steps() {
    let world = World::new().await;
    let sandbox = world.create("").await;
    let now = sampled(&world, &sandbox, &[3000, 2000, 1000, 0])
        .await
        .as_second();
    let week = format!("?start={}&end={now}", now - 8 * 24 * 3600);
    let points = metrics(&world, &sandbox, &week).await;
    // At most one for each 900 s.
    let times: Vec<_> = points
        .iter()
        .map(|p| p["timestampUnix"].as_i64().unwrap() / 900)
        .collect();
    let mut steps = times.clone();
    steps.dedup();
    assert_eq!(times, steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_about_metrics_are_refused() {
    let world = World::new().await;
    let sandbox = world.create("").await;
    let get = async |path: String| world.api("GET", &path).send().await;
    let one = format!("/sandboxes/{sandbox}/metrics");
    let wrong = get(format!("{one}?start=2&end=1")).await.error(400);
    assert_eq!(wrong, "Invalid time range for metrics");
    for query in ["start=-1", "end=x", "start=1.5", "end=9223372036854775808"] {
        let message = get(format!("{one}?{query}")).await.error(400);
        assert!(message.starts_with("validation error: "), "{message}");
    }
    assert_eq!(get("/sandboxes/inobody/metrics".into()).await.text, "[]");
    get("/sandboxes/i_wrong/metrics".into()).await.error(400);
    for query in [
        "",
        "?sandbox_ids=",
        "?sandbox_ids=iabc,iabc",
        "?sandbox_ids=i_b",
    ] {
        get(format!("/sandboxes/metrics{query}")).await.error(400);
    }
    let many: Vec<_> = (0..101).map(|n| format!("i{n}")).collect();
    let path = |count: usize| format!("/sandboxes/metrics?sandbox_ids={}", many[..count].join(","));
    let message = get(path(101)).await.error(400);
    assert_eq!(message, "Too many sandboxes requested, maximum is 100");
    assert_eq!(get(path(100)).await.json(), json!({"sandboxes": {}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_figures_of_many_leave_out_those_without() {
    let world = World::new().await;
    let (sampled_one, silent) = (world.create("").await, world.create("").await);
    sampled(&world, &sampled_one, &[10, 0]).await;
    let path = format!("/sandboxes/metrics?sandbox_ids={silent},{sampled_one}-6532622b");
    let found = world.api("GET", &path).send().await.json();
    let sandboxes = found["sandboxes"].as_object().unwrap();
    assert_eq!(sandboxes.len(), 1);
    assert_eq!(sandboxes[sampled_one.as_str()]["cpuUsedPct"], 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_outlive_the_sandbox_and_the_process_and_are_its_teams_alone() {
    let mut world = World::new().await;
    let sandbox = world.create("").await;
    sampled(&world, &sandbox, &[10, 0]).await;
    let path = format!("/sandboxes/{sandbox}");
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
    world.restart().await;
    assert_eq!(metrics(&world, &sandbox, "").await.len(), 2);
    let (_, key) = world.other_team(Standing::Good).await;
    let strange = async |path: String| {
        let call = world.call("GET", &path).header("x-api-key", &key);
        call.send().await.text
    };
    assert_eq!(strange(format!("/sandboxes/{sandbox}/metrics")).await, "[]");
    let many = strange(format!("/sandboxes/metrics?sandbox_ids={sandbox}")).await;
    assert_eq!(many, r#"{"sandboxes":{}}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teams_activity_counts_its_sandboxes_and_their_starts() {
    let every = Duration::from_millis(50);
    let world = World::with(|config| config.activity_every = every).await;
    let path = format!("/teams/{}/metrics", world.team);
    let get = async |more: &str| world.api("GET", &format!("{path}{more}")).send().await;
    assert_eq!(get("").await.text, "[]");
    let empty = get("/max?metric=concurrent_sandboxes").await.json();
    assert_eq!(empty["value"], 0.0);
    for _ in 0..3 {
        world.create("").await;
    }
    until("three are noted", || async {
        get("/max?metric=concurrent_sandboxes").await.json()["value"] == 3.0
    })
    .await;
    let points = get("").await.json();
    assert!(points[0]["timestampUnix"].is_i64() && points[0]["timestamp"].is_string());
    let last = points.as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["concurrentSandboxes"], 3);
    let rate = get("/max?metric=sandbox_start_rate").await.json();
    assert!(rate["value"].as_f64().unwrap() > 0.0, "{rate}");
    for query in ["/max", "/max?metric=other", "?start=-1"] {
        get(query).await.error(400);
    }
    let range = get("?start=2&end=1").await.error(400);
    assert_eq!(range, "Invalid time range for metrics");
    let (other, key) = world.other_team(Standing::Good).await;
    world
        .api("GET", &format!("/teams/{other}/metrics"))
        .send()
        .await
        .error(403);
    for path in [
        path.clone(),
        format!("{path}/max?metric=sandbox_start_rate"),
    ] {
        let call = world.call("GET", &path).header("x-api-key", &key);
        call.send().await.error(403);
    }
}
