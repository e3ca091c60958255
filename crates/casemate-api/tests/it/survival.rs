//! What runs against what should run, when either side was away.

use std::time::Duration;

use casemate_catalog::Catalog;
use casemate_rpc::NodePort;
use casemate_store::Sandboxes;
use casemate_types::{CompiledPolicy, EndReason, SandboxId, SandboxState};

use crate::world::{World, until};

async fn reason(world: &World, sandbox: &SandboxId) -> Option<EndReason> {
    match world.store.sandbox_by_id(sandbox).await.unwrap()?.state {
        SandboxState::Running { .. } | SandboxState::Paused { .. } => None,
        SandboxState::Dead { reason, .. } => Some(reason),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_sandboxes_survive_a_restart() {
    let mut world = World::new().await;
    let sandbox = world.create("").await;
    let before = world
        .api("GET", &format!("/sandboxes/{sandbox}"))
        .send()
        .await
        .json();
    world.restart().await;
    assert_eq!(world.control.sandbox_total(), 1);
    let after = world
        .api("GET", &format!("/sandboxes/{sandbox}"))
        .send()
        .await
        .json();
    assert_eq!(after, before);
    assert!(world.catalog.route_by_id(&sandbox).await.unwrap().is_some());
    let killed = world
        .api("DELETE", &format!("/sandboxes/{sandbox}"))
        .send()
        .await;
    assert_eq!(killed.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_lost_meanwhile_is_lost_and_what_expired_is_expired() {
    let world = World::new().await;
    let (kept, lost) = (world.create("").await, world.create("").await);
    let expired = world.create(r#","timeout":1"#).await;
    world.node.disconnect();
    world.node.lose(&lost);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.node.lose(&expired);
    assert_eq!(world.status_of(&expired).await, 404);
    world.node.reconnect();
    until("both are noted", || async {
        reason(&world, &lost).await.is_some() && reason(&world, &expired).await.is_some()
    })
    .await;
    assert_eq!(reason(&world, &lost).await, Some(EndReason::Lost));
    assert_eq!(reason(&world, &expired).await, Some(EndReason::Expired));
    assert_eq!(reason(&world, &kept).await, None);
    assert_eq!(world.control.sandbox_total(), 1);
    assert!(world.catalog.route_by_id(&lost).await.unwrap().is_none());
    assert!(world.catalog.route_by_id(&kept).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_sandbox_that_runs_is_ended() {
    let world = World::new().await;
    let sandbox = world.create("").await;
    world.node.disconnect();
    until("the loss is noticed", || async {
        world.call("GET", "/ready").send().await.status == 503
    })
    .await;
    let row = world.store.sandbox_by_id(&sandbox).await.unwrap().unwrap();
    let now = casemate_types::Timestamp::now();
    let end = world
        .store
        .sandbox_end(&sandbox, row.generation, EndReason::Killed, now);
    end.await.unwrap();
    assert_eq!(world.node.running().len(), 1);
    world.node.reconnect();
    until("it is ended", || async { world.node.running().is_empty() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_ended_holds_up_nothing_else() {
    let world = World::new().await;
    let (stuck, other) = (world.create("").await, world.create("").await);
    world.node.resist(&stuck);
    world.node.disconnect();
    let row = world.store.sandbox_by_id(&stuck).await.unwrap().unwrap();
    let now = casemate_types::Timestamp::now();
    let end = world
        .store
        .sandbox_end(&stuck, row.generation, EndReason::Killed, now);
    end.await.unwrap();
    world.node.reconnect();
    until("it is to be ended", || async { world.node.kills() == 1 }).await;
    world.node.exit(&other);
    until("the other's end is noted", || async {
        reason(&world, &other).await == Some(EndReason::Exited)
    })
    .await;
    world.create("").await;
}

/// As of a server that died between the node's answer and its own write.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_policy_that_was_never_written_gives_way_to_the_one_that_was() {
    let world = World::new().await;
    let sandbox = world.create(r#","network":{"denyOut":["1.1.1.1"]}"#).await;
    let promised = world.node.policy(&sandbox).unwrap();
    let other = CompiledPolicy::open();
    world.node.set_network(&sandbox, other).await.unwrap();
    world.node.disconnect();
    until("the loss is noticed", || async {
        world.call("GET", "/ready").send().await.status == 503
    })
    .await;
    world.node.reconnect();
    until("both agree", || async {
        world.node.policy(&sandbox).unwrap() == promised
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_was_promised_meanwhile_is_kept() {
    let world = World::new().await;
    let sandbox = world.create("").await;
    world.node.disconnect();
    let path = format!("/sandboxes/{sandbox}/timeout");
    let told = world
        .api("POST", &path)
        .json(r#"{"timeout":1000}"#)
        .send()
        .await;
    told.error_code(503, "sandbox_node_unreachable");
    let row = world.store.sandbox_by_id(&sandbox).await.unwrap().unwrap();
    let SandboxState::Running { ends_at } = row.state else {
        panic!("it runs")
    };
    world.node.reconnect();
    until("the node was told", || async {
        world.node.ends_at(&sandbox).unwrap().as_microsecond() == ends_at.as_microsecond()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_a_grace_and_then_goes() {
    let world = World::with(|config| config.orphan_grace = Duration::from_millis(300)).await;
    let stranger = SandboxId::random();
    world.node.run_stranger(&stranger, &world.team, true);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.node.running().len(), 1);
    assert_eq!(world.status_of(&stranger).await, 404);
    until("it is ended", || async { world.node.running().is_empty() }).await;
    // Its team finds out what became of it.
    let get = async |path: String| world.api("GET", &path).send().await.json();
    until("its end is kept", || async {
        let events = get(format!("/events/sandboxes/{stranger}")).await;
        events[0]["event_data"]["reason"] == "orphaned"
    })
    .await;
    until("its log has it", || async {
        let logs = get(format!("/v2/sandboxes/{stranger}/logs")).await;
        let line = &logs["logs"][0];
        line["message"] == "Sandbox ended: orphaned" && line["level"] == "warn"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_a_crash_cut_off_goes_before_what_a_lost_store_forgot() {
    let world = World::with(|config| config.row_grace = Duration::from_millis(300)).await;
    let (forgotten, cut_off) = (SandboxId::random(), SandboxId::random());
    world.node.run_stranger(&forgotten, &world.team, true);
    world.node.run_stranger(&cut_off, &world.team, false);
    until("that one is ended", || async {
        !world.node.running().contains(&cut_off)
    })
    .await;
    assert_eq!(world.node.running(), [forgotten]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_a_crash_cut_off_goes_also_when_its_deadline_has_paused_it() {
    let world = World::with(|config| config.row_grace = Duration::from_millis(300)).await;
    world.node.disconnect();
    let (forgotten, cut_off) = (SandboxId::random(), SandboxId::random());
    for (id, recorded) in [(&forgotten, true), (&cut_off, false)] {
        world.node.run_stranger(id, &world.team, recorded);
        world.node.pause_by_deadline(id);
    }
    world.node.reconnect();
    until("that one is ended", || async {
        !world.node.running().contains(&cut_off)
    })
    .await;
    assert_eq!(world.node.running(), [forgotten]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_cut_off_from_its_node_leaves_nothing() {
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
    world.node.disconnect();
    world.node.release_creates();
    client.await.unwrap().error(503);
    until("the order to end it was lost", || async {
        world.node.kills() == 1
    })
    .await;
    assert_eq!(world.node.running().len(), 1);
    world.node.reconnect();
    until("it is ended", || async { world.node.running().is_empty() }).await;
    assert!(world.listed().await.is_empty());
}
