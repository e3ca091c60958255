//! Pausing and going on, by the conflict table.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use casemate_catalog::Catalog;
use casemate_control::RootSecret;
use casemate_control::keys::Keys;
use casemate_control::sandboxes::wake::{Knock, WakeError};
use casemate_rpc::{NodeError, NodePort};
use casemate_store::Sandboxes;
use casemate_types::{Kept, SandboxId, SandboxState, Timestamp};
use serde_json::{Value, json};

use crate::world::{Answer, World, until};

async fn post(world: &World, id: &SandboxId, what: &str, body: &str) -> Answer {
    let path = format!("/sandboxes/{id}/{what}");
    world.api("POST", &path).json(body).send().await
}

async fn pause(world: &World, id: &SandboxId) -> StatusCode {
    post(world, id, "pause", "{}").await.status
}

async fn connect(world: &World, id: &SandboxId, body: &str) -> Answer {
    let path = format!("/v2/sandboxes/{id}/connect");
    world.api("POST", &path).json(body).send().await
}

async fn detail(world: &World, id: &SandboxId) -> Value {
    let path = format!("/sandboxes/{id}");
    world.api("GET", &path).send().await.json()
}

async fn listed(world: &World, query: &str) -> Vec<String> {
    let path = format!("/v2/sandboxes{query}");
    let rows = world.api("GET", &path).send().await.json();
    let id = |row: &Value| row["sandboxID"].as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(id).collect()
}

/// Seconds from now until its end.
async fn left(world: &World, id: &SandboxId) -> i64 {
    let end: Timestamp = detail(world, id).await["endAt"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    (end.as_millisecond() - Timestamp::now().as_millisecond() + 500).div_euclid(1000)
}

async fn is_asleep(world: &World, id: &SandboxId) -> Option<bool> {
    Some(world.catalog.route_by_id(id).await.unwrap()?.asleep)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_one_shows_so_and_goes_on_as_a_new_run() {
    let world = World::new().await;
    let id = world.create(r#","metadata":{"a":"b"},"timeout":300"#).await;
    let before = detail(&world, &id).await;
    // Old clients send nothing at all.
    let path = format!("/sandboxes/{id}/pause");
    assert_eq!(world.api("POST", &path).send().await.status, 204);
    let paused = detail(&world, &id).await;
    assert_eq!(paused["state"], "paused");
    assert_eq!(paused["pauseMode"], "full");
    assert_eq!(paused["domain"], Value::Null);
    assert_eq!(paused["startedAt"], before["startedAt"]);
    assert_eq!(paused["envdAccessToken"], before["envdAccessToken"]);
    assert!(left(&world, &id).await <= 0, "its end is its pause");
    assert_eq!(is_asleep(&world, &id).await, Some(true));
    let message = post(&world, &id, "pause", "{}").await.error(409);
    assert_eq!(
        message,
        format!("Error pausing sandbox - sandbox '{id}' is already paused")
    );
    for (what, body) in [("timeout", r#"{"timeout":9}"#), ("refreshes", "{}")] {
        post(&world, &id, what, body).await.error(404);
    }
    let network = world.api("PUT", &format!("/sandboxes/{id}/network"));
    network.json("{}").send().await.error(404);

    let resumed = connect(&world, &id, r#"{"timeout":400}"#).await;
    assert_eq!(resumed.status, 201);
    assert_eq!(resumed.json()["envdAccessToken"], before["envdAccessToken"]);
    let after = detail(&world, &id).await;
    assert_eq!(after["state"], "running");
    assert!(after.get("pauseMode").is_none());
    assert_ne!(after["startedAt"], before["startedAt"]);
    assert_eq!(after["metadata"], before["metadata"]);
    assert!((399..=400).contains(&left(&world, &id).await));
    assert_eq!(is_asleep(&world, &id).await, Some(false));
    assert_eq!(connect(&world, &id, "{}").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_both_and_filter_by_state() {
    let world = World::new().await;
    let paused = world.create("").await;
    let running = world.create("").await;
    assert_eq!(pause(&world, &paused).await, 204);
    let both = [running.to_string(), paused.to_string()];
    assert_eq!(listed(&world, "").await, both);
    assert_eq!(listed(&world, "?state=paused,running").await, both);
    assert_eq!(listed(&world, "?state=paused").await, both[1..]);
    assert_eq!(listed(&world, "?state=running").await, both[..1]);
    assert_eq!(listed(&world, "?limit=1").await, both[..1]);
    let v1 = world.api("GET", "/sandboxes").send().await.json();
    assert_eq!(v1.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_a_paused_one_ends_it() {
    let world = World::new().await;
    let id = world.create("").await;
    assert_eq!(pause(&world, &id).await, 204);
    let path = format!("/sandboxes/{id}");
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
    world.api("DELETE", &path).send().await.error(404);
    post(&world, &id, "pause", "{}").await.error(404);
    connect(&world, &id, "{}").await.error(404);
    assert_eq!(listed(&world, "").await, [""; 0]);
    assert!(world.node.running().is_empty());
    assert_eq!(is_asleep(&world, &id).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_during_a_pause_joins_waits_or_is_refused() {
    let world = Arc::new(World::new().await);
    let id = world.create("").await;
    world.node.hold_pauses();
    let spawn = |what: &'static str| {
        let (world, id) = (Arc::clone(&world), id.clone());
        tokio::spawn(async move {
            match what {
                "connect" => connect(&world, &id, "{}").await.status,
                what => post(&world, &id, what, "{}").await.status,
            }
        })
    };
    let first = spawn("pause");
    let is_paused = || async { detail(&world, &id).await["state"] == "paused" };
    until("it shows as paused", is_paused).await;
    assert!(detail(&world, &id).await.get("pauseMode").is_none());
    assert_eq!(listed(&world, "?state=running").await, [""; 0]);
    let busy = format!("Sandbox \"{id}\" is being paused");
    for (what, body) in [("timeout", r#"{"timeout":9}"#), ("refreshes", "{}")] {
        assert_eq!(post(&world, &id, what, body).await.error(409), busy);
    }
    let network = world.api("PUT", &format!("/sandboxes/{id}/network"));
    assert_eq!(network.json("{}").send().await.error(409), busy);
    // Its node may tell of the pause before it answers, as it does while it gives up a memory.
    world.node.pause_by_deadline(&id);
    until("its row says paused", || async {
        let row = world.store.sandbox_by_id(&id).await.unwrap().unwrap();
        matches!(row.state, SandboxState::Paused { .. })
    })
    .await;
    assert!(detail(&world, &id).await.get("pauseMode").is_none());
    for what in ["snapshots", "fork"] {
        let message = post(&world, &id, what, "{}").await.error(409);
        assert!(message.ends_with("while in 'pausing' state"), "{message}");
    }
    let (second, waiting) = (spawn("pause"), spawn("connect"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.is_finished() && !waiting.is_finished());
    world.node.release_pauses();
    assert_eq!(first.await.unwrap(), 204);
    assert_eq!(second.await.unwrap(), 204);
    assert_eq!(waiting.await.unwrap(), 201);
    assert_eq!(detail(&world, &id).await["state"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_while_others_pause_is_connected() {
    const ROUNDS: usize = 300;
    let world = Arc::new(World::new().await);
    let id = world.create("").await;
    let again = |what: &'static str| {
        let (world, id) = (Arc::clone(&world), id.clone());
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                match what {
                    "connect" => {
                        let answer = connect(&world, &id, "{}").await;
                        assert!(
                            [200, 201].contains(&answer.status.as_u16()),
                            "{}",
                            answer.text
                        );
                    }
                    what => {
                        let answer = post(&world, &id, what, "{}").await;
                        assert!(
                            [201, 204, 409].contains(&answer.status.as_u16()),
                            "{}",
                            answer.text
                        );
                    }
                }
            }
        })
    };
    let all = ["pause", "pause", "resume", "connect", "connect", "connect"].map(again);
    for one in all {
        one.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_during_a_pause_wins() {
    let world = Arc::new(World::new().await);
    let id = world.create("").await;
    world.node.hold_pauses();
    let (first, killed) = {
        let (a, b, id) = (Arc::clone(&world), Arc::clone(&world), id.clone());
        let other = id.clone();
        let first = tokio::spawn(async move { pause(&a, &id).await });
        until("it pauses", || async {
            detail(&b, &other).await["state"] == "paused"
        })
        .await;
        let killed = tokio::spawn(async move {
            let path = format!("/sandboxes/{other}");
            b.api("DELETE", &path).send().await.status
        });
        (first, killed)
    };
    world.node.release_pauses();
    assert_eq!(first.await.unwrap(), 204);
    assert_eq!(killed.await.unwrap(), 204);
    assert!(world.node.running().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_fails_changes_nothing() {
    let world = World::new().await;
    let id = world.create("").await;
    world.node.fail_pauses();
    let message = post(&world, &id, "pause", "{}").await.error(500);
    assert_eq!(message, "Error pausing sandbox");
    assert_eq!(detail(&world, &id).await["state"], "running");
    // The fake's agent listens nowhere.
    for body in [r#"{"memory":false}"#, r#"{"requireHealthyGuest":true}"#] {
        let message = post(&world, &id, "pause", body).await.error(503);
        assert!(message.contains("keeps running"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_pauses_where_that_was_asked_for() {
    let world = World::new().await;
    let id = world.create(r#","timeout":1,"autoPause":true"#).await;
    let lifecycle = json!({"autoResume": false, "onTimeout": "pause"});
    assert_eq!(detail(&world, &id).await["lifecycle"], lifecycle);
    until("it is paused", || async {
        detail(&world, &id).await["pauseMode"] == "full"
    })
    .await;
    // A resume keeps what happens at the deadline, unless it says otherwise.
    let path = format!("/sandboxes/{id}/resume");
    let ask = r#"{"timeout":60,"autoPause":false}"#;
    let resumed = world.api("POST", &path).json(ask).send().await;
    assert_eq!(resumed.status, 201);
    assert_eq!(detail(&world, &id).await["lifecycle"]["onTimeout"], "kill");
    let again = world.api("POST", &path).json("{}").send().await.error(409);
    assert_eq!(again, format!("Sandbox {id} is already running"));
    assert_eq!(pause(&world, &id).await, 204);
    let zero = world
        .api("POST", &path)
        .json(r#"{"timeout":0}"#)
        .send()
        .await;
    zero.error(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_of_a_paused_one_is_told_and_it_starts_with_its_variables() {
    let world = World::new().await;
    let id = world.create(r#","envVars":{"KEY":"a secret"}"#).await;
    assert_eq!(pause(&world, &id).await, 204);
    world.node.lose_processes(&id);
    until("files are left", || async {
        detail(&world, &id).await["pauseMode"] == "filesystem"
    })
    .await;
    assert_eq!(connect(&world, &id, "{}").await.status, 201);
    let envs = world.node.envs(&id).unwrap();
    assert_eq!(envs["KEY"], "a secret");
    let file = std::fs::read(world.store.path()).unwrap();
    let wal = std::fs::read(world.store.path().with_extension("sqlite-wal")).unwrap_or_default();
    for bytes in [file, wal] {
        assert!(!bytes.windows(8).any(|window| window == b"a secret"));
    }
    let events = world.api("GET", &format!("/events/sandboxes/{id}?orderAsc=true"));
    until("the events are there", || async {
        let call = world.api("GET", &format!("/events/sandboxes/{id}?orderAsc=true"));
        call.send().await.json().as_array().unwrap().len() == 4
    })
    .await;
    let events = events.send().await.json();
    let told: Vec<_> = events
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            (
                event["type"].as_str().unwrap().to_owned(),
                event["event_data"].clone(),
            )
        })
        .collect();
    let told = told
        .iter()
        .map(|(kind, data)| (kind.as_str(), data))
        .collect::<Vec<_>>();
    let expected = [
        (
            "sandbox.lifecycle.paused",
            json!({"kept": "memory", "reason": "asked"}),
        ),
        (
            "sandbox.lifecycle.paused",
            json!({"kept": "files", "reason": "processes_lost"}),
        ),
        ("sandbox.lifecycle.resumed", json!({"from": "files"})),
    ];
    for (kind, data) in &expected {
        assert!(told.contains(&(kind, data)), "{kind} {data}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_processes_can_be_given_up_when_it_goes_on() {
    let world = World::new().await;
    for _ in 0..20 {
        let id = world.create("").await;
        assert_eq!(pause(&world, &id).await, 204);
        let resumed = connect(&world, &id, r#"{"memory":false}"#).await;
        assert_eq!(resumed.status, 201);
        assert_eq!(detail(&world, &id).await["state"], "running");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_one_takes_no_place_of_its_team() {
    let world = World::with(|config| config.limits.sandboxes_max = 1).await;
    let first = world.create("").await;
    assert_eq!(pause(&world, &first).await, 204);
    let second = world.create("").await;
    connect(&world, &first, "{}").await.error(429);
    assert_eq!(detail(&world, &first).await["state"], "paused");
    let path = format!("/sandboxes/{second}");
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
    assert_eq!(connect(&world, &first, "{}").await.status, 201);
    world.try_create("").await.error(429);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_connect_at_once_get_one_start() {
    let world = Arc::new(World::new().await);
    let id = world.create("").await;
    assert_eq!(pause(&world, &id).await, 204);
    let all: Vec<_> = (0..20)
        .map(|_| {
            let (world, id) = (Arc::clone(&world), id.clone());
            tokio::spawn(async move { connect(&world, &id, "{}").await.status.as_u16() })
        })
        .collect();
    for one in all {
        let status = one.await.unwrap();
        assert!(status == 200 || status == 201, "{status}");
    }
    assert_eq!(detail(&world, &id).await["state"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_that_has_no_room_leaves_it_paused() {
    let world = World::new().await;
    let id = world.create("").await;
    assert_eq!(pause(&world, &id).await, 204);
    let what = "only 1 MiB of memory are free".into();
    world.node.fail_creates(Some(NodeError::Full { what }));
    let message = connect(&world, &id, "{}").await.error(503);
    assert!(message.starts_with("Failed to place sandbox"), "{message}");
    assert_eq!(detail(&world, &id).await["state"], "paused");
    world.node.fail_creates(None);
    assert_eq!(connect(&world, &id, "{}").await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_and_resumes_survive_a_restart_and_a_lost_word() {
    let mut world = World::new().await;
    let [at_rest, paused_unheard, resumed_unheard] = [
        world.create("").await,
        world.create("").await,
        world.create("").await,
    ];
    assert_eq!(pause(&world, &at_rest).await, 204);
    assert_eq!(pause(&world, &resumed_unheard).await, 204);
    // Control is gone between the node's answer and the row.
    world.control.shutdown().await;
    world
        .node
        .pause(&paused_unheard, Kept::Memory)
        .await
        .unwrap();
    world.node.resume_unheard(&resumed_unheard);
    world.restart().await;
    for (id, state) in [
        (&at_rest, "paused"),
        (&paused_unheard, "paused"),
        (&resumed_unheard, "running"),
    ] {
        until("both agree", || async {
            detail(&world, id).await["state"] == state
        })
        .await;
    }
    assert_eq!(world.control.sandbox_total(), 1);
    assert_eq!(is_asleep(&world, &at_rest).await, Some(true));
    assert_eq!(is_asleep(&world, &resumed_unheard).await, Some(false));
    let resumed = detail(&world, &resumed_unheard).await;
    assert_eq!(
        resumed["lifecycle"]["onTimeout"], "pause",
        "as it was asked for then"
    );
    world.node.lose(&at_rest);
    world.restart().await;
    connect(&world, &at_rest, "{}").await.error(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_wakes_what_asked_for_it_with_the_right_token() {
    let world = World::new().await;
    let open = world
        .create(r#","timeout":400,"autoPause":true,"autoResume":{"enabled":true}"#)
        .await;
    let plain = world.create("").await;
    let private = world
        .create(r#","autoResume":{"enabled":true},"network":{"allowPublicTraffic":false}"#)
        .await;
    for id in [&open, &plain, &private] {
        assert_eq!(pause(&world, id).await, 204);
    }
    let wake = async |id: &SandboxId, for_agent, access: Option<&str>, traffic: Option<&str>| {
        let knock = Knock {
            for_agent,
            access_token: access.map(str::as_bytes),
            traffic_token: traffic.map(str::as_bytes),
        };
        world.control.wake(id, knock).await
    };
    assert!(matches!(
        wake(&plain, false, None, None).await,
        Err(WakeError::NotFound)
    ));
    let stranger = SandboxId::random();
    assert!(matches!(
        wake(&stranger, false, None, None).await,
        Err(WakeError::NotFound)
    ));
    let token = detail(&world, &open).await["envdAccessToken"]
        .as_str()
        .unwrap()
        .to_owned();
    for wrong in [None, Some("wrong"), Some("")] {
        assert!(matches!(
            wake(&open, true, wrong, None).await,
            Err(WakeError::Denied)
        ));
    }
    assert!(matches!(
        wake(&private, false, None, None).await,
        Err(WakeError::Denied)
    ));
    assert_eq!(detail(&world, &open).await["state"], "paused");
    wake(&open, true, Some(&token), None).await.unwrap();
    assert!(
        (399..=400).contains(&left(&world, &open).await),
        "as at its create"
    );
    // As the client was told when it was made.
    let root = RootSecret::new(vec![7; 32]).unwrap();
    let traffic = Keys::derive(&root).traffic_token(&private);
    wake(&private, false, None, Some(&traffic)).await.unwrap();
    assert!(
        (299..=300).contains(&left(&world, &private).await),
        "five minutes at least"
    );
    let answer = connect(&world, &private, "{}").await.json();
    assert_eq!(answer["trafficAccessToken"], traffic);
    // With files alone there is nothing that could answer, also where nobody knows that yet.
    assert_eq!(pause(&world, &open).await, 204);
    world.node.lose_processes_unheard(&open);
    assert!(matches!(
        wake(&open, true, Some(&token), None).await,
        Err(WakeError::NotFound)
    ));
    assert_eq!(world.node.kept(&open), Some(Kept::Files), "it rests");
    assert_eq!(detail(&world, &open).await["pauseMode"], "full");
    world.node.lose_processes(&open);
    until("files are left", || async {
        detail(&world, &open).await["pauseMode"] == "filesystem"
    })
    .await;
    assert!(matches!(
        wake(&open, false, None, None).await,
        Err(WakeError::NotFound)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_for_as_long_as_its_team_keeps_such_goes() {
    let mut world = World::new().await;
    let [old, young] = [world.create("").await, world.create("").await];
    let answer = post(&world, &old, "snapshots", r#"{"name":"old"}"#).await;
    assert_eq!(answer.status, 201);
    for id in [&old, &young] {
        assert_eq!(pause(&world, id).await, 204);
    }
    // Its pause was two days ago, as the row says.
    let long_ago = Timestamp::now() - Duration::from_secs(2 * 24 * 3600);
    let row = world.store.sandbox_by_id(&old).await.unwrap().unwrap();
    let changed = world
        .store
        .sandbox_pause(&old, row.generation, long_ago, Kept::Memory);
    changed.await.unwrap();
    world
        .restart_with(|config| config.limits.paused_days = 1)
        .await;
    until("it is gone", || async {
        world.status_of(&old).await == 404
    })
    .await;
    until("its processes are gone", || async {
        world.node.running() == std::slice::from_ref(&young)
    })
    .await;
    assert_eq!(detail(&world, &young).await["state"], "paused");
    let snapshots = world.api("GET", "/snapshots").send().await.json();
    assert_eq!(snapshots.as_array().unwrap().len(), 1, "for ever");
}
