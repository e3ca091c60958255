//! A node that no server reaches: it is given up, and comes back.

use std::time::{Duration, Instant};

use casemate_control::testing::FakeNode;
use casemate_control::{ControlConfig, ServerTimes, Sharing};
use casemate_store::ServerBeat;
use casemate_types::{EndReason, SandboxId, SandboxState};

use super::cluster::{Cluster, TIMES, id_of};
use crate::world::{Answer, until};

/// The cluster's own node and one more.
pub(super) async fn two_nodes(change: impl Fn(&mut ControlConfig)) -> (Cluster, FakeNode) {
    let mut cluster = Cluster::with(change).await;
    let second = cluster.node.beside("second");
    cluster.join(std::slice::from_ref(&second)).await;
    (cluster, second)
}

pub(super) const BASE: &str = r#"{"templateID":"base","timeout":300}"#;

/// One that runs there: which node is asked is a lot, so others are ended until one does.
pub(super) async fn create_at(cluster: &Cluster, node: &FakeNode, body: &str) -> SandboxId {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(30) {
        let call = cluster.api(0, "POST", "/v2/sandboxes").json(body);
        let created = call.send().await;
        assert_eq!(created.status, 201, "{}", created.text);
        let id = id_of(&created);
        if node.running().contains(&id) {
            return id;
        }
        assert_eq!(sandbox(cluster, 0, "DELETE", &id).await.status, 204);
    }
    panic!("node {} gets none", node.name());
}

pub(super) async fn made_at(cluster: &Cluster, node: &FakeNode, count: usize) -> Vec<SandboxId> {
    let mut made = Vec::new();
    for _ in 0..count {
        made.push(create_at(cluster, node, BASE).await);
    }
    made
}

pub(super) async fn sandbox(
    cluster: &Cluster,
    server: usize,
    method: &str,
    id: &SandboxId,
) -> Answer {
    let call = cluster.api(server, method, &format!("/sandboxes/{id}"));
    call.send().await
}

pub(super) async fn change(cluster: &Cluster, server: usize, id: &SandboxId, verb: &str) -> Answer {
    let call = cluster.api(server, "POST", &format!("/sandboxes/{id}/{verb}"));
    call.json(r#"{"timeout":600}"#).send().await
}

async fn listed(cluster: &Cluster, server: usize, states: &str) -> Vec<String> {
    let path = format!("/v2/sandboxes?limit=100&state={states}");
    let answer = cluster.api(server, "GET", &path).send().await.json();
    let ids = answer.as_array().unwrap().iter();
    ids.map(|one| one["sandboxID"].as_str().unwrap().to_owned())
        .collect()
}

/// What its row says of being lost, as administrators see it.
async fn is_lost(cluster: &Cluster, server: usize, node: &FakeNode) -> bool {
    let listed = cluster.admin(server, "GET", "/admin/cluster/nodes").send();
    let listed = listed.await.json();
    let mut nodes = listed.as_array().unwrap().iter();
    let found = nodes.find(|one| one["nodeID"] == node.name()).unwrap();
    found["lostAt"].is_string()
}

async fn fence(cluster: &Cluster, node: &FakeNode) -> Answer {
    let path = format!("/admin/cluster/nodes/{}/fence", node.name());
    cluster.admin(0, "POST", &path).send().await
}

/// Until both servers know.
pub(super) async fn lose(cluster: &Cluster, node: &FakeNode, of_it: &SandboxId) {
    node.disconnect();
    until("nobody keeps it", || async { !cluster.is_kept(node).await }).await;
    let fenced = fence(cluster, node).await;
    assert_eq!(fenced.status, 204, "{}", fenced.text);
    until("both know", || async {
        let (one, two) = (
            sandbox(cluster, 0, "GET", of_it).await,
            sandbox(cluster, 1, "GET", of_it).await,
        );
        one.status == 404 && two.status == 404
    })
    .await;
}

pub(super) async fn comes_back(cluster: &Cluster, node: &FakeNode) {
    node.reconnect();
    until("it is there again", || async {
        cluster.is_kept(node).await
            && !is_lost(cluster, 0, node).await
            && connected_to(cluster, node).await == [true, true]
    })
    .await;
}

/// Whether each server is.
async fn connected_to(cluster: &Cluster, node: &FakeNode) -> [bool; 2] {
    let mut connected = [false; 2];
    for (server, connected) in connected.iter_mut().enumerate() {
        let listed = cluster.admin(server, "GET", "/admin/cluster/nodes").send();
        let listed = listed.await.json();
        let mut nodes = listed.as_array().unwrap().iter();
        let found = nodes.find(|one| one["nodeID"] == node.name()).unwrap();
        *connected = found["connected"] == true;
    }
    connected
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_on_a_lost_node_is_not_there_until_it_returns() {
    let (cluster, second) = two_nodes(|_| {}).await;
    let reached = fence(&cluster, &second).await;
    reached.error_code(409, "node_reached");
    let made = made_at(&cluster, &second, 4).await;
    let [runs, killed, rests, ended] = &made[..] else {
        unreachable!("four were made");
    };
    for paused in [rests, ended] {
        assert_eq!(change(&cluster, 0, paused, "pause").await.status, 204);
    }
    let before = listed(&cluster, 0, "running").await.len();
    lose(&cluster, &second, runs).await;
    assert_eq!(fence(&cluster, &second).await.status, 204, "it is already");

    let lost =
        format!("Sandbox \"{runs}\" was lost with its node second; it comes back if the node does");
    for server in 0..2 {
        let shown = sandbox(&cluster, server, "GET", runs).await;
        shown.error_code(404, "sandbox_lost");
        assert_eq!(shown.error(404), lost);
        for verb in ["connect", "timeout", "pause", "resume", "snapshots"] {
            let refused = change(&cluster, server, runs, verb).await;
            refused.error_code(404, "sandbox_lost");
        }
        let running = listed(&cluster, server, "running").await;
        assert_eq!(running.len(), before - 2);
        assert!(!running.contains(&runs.to_string()));
        // One that rests waits for its node.
        assert!(
            listed(&cluster, server, "paused")
                .await
                .contains(&rests.to_string())
        );
        assert_eq!(sandbox(&cluster, server, "GET", rests).await.status, 200);
        let refused = change(&cluster, server, rests, "connect").await;
        refused.error_code(503, "sandbox_node_lost");
        assert!(refused.error(503).contains("node second, which is lost"));
    }
    for gone in [killed, ended] {
        assert_eq!(sandbox(&cluster, 1, "DELETE", gone).await.status, 204);
        assert!(second.running().contains(gone), "nobody can tell the node");
    }
    assert_eq!(sandbox(&cluster, 0, "GET", killed).await.status, 404);

    comes_back(&cluster, &second).await;
    until("the killed are told of", || async {
        let running = second.running();
        !running.contains(killed) && !running.contains(ended)
    })
    .await;
    for server in 0..2 {
        until("both know", || async {
            sandbox(&cluster, server, "GET", runs).await.status == 200
        })
        .await;
    }
    assert_eq!(change(&cluster, 0, runs, "timeout").await.status, 204);
    assert_eq!(change(&cluster, 1, rests, "connect").await.status, 201);
    assert_eq!(listed(&cluster, 1, "running").await.len(), before);
    // It takes new ones again.
    made_at(&cluster, &second, 1).await;
}

/// Nobody is told: as it is with a server that only looks every two seconds.
pub(super) async fn lose_untold(cluster: &Cluster, node: &FakeNode) {
    node.disconnect();
    until("nobody reaches it", || async {
        !cluster.is_kept(node).await && connected_to(cluster, node).await == [false, false]
    })
    .await;
    let row = cluster.store.node_by_id(&node.name()).await.unwrap();
    let generation = row.unwrap().generation;
    let fenced = cluster.store.node_fence(&node.name(), generation).await;
    fenced.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_refuses_what_is_lost_and_lets_in_what_is_back_without_being_told() {
    let (cluster, second) = two_nodes(|_| {}).await;
    let made = made_at(&cluster, &second, 4).await;
    let [runs, killed, rests, ended] = &made[..] else {
        unreachable!("four were made");
    };
    for paused in [rests, ended] {
        assert_eq!(change(&cluster, 0, paused, "pause").await.status, 204);
    }
    lose_untold(&cluster, &second).await;
    let asked = ["timeout", "connect", "pause", "snapshots"];
    for (server, verbs) in [&asked[..2], &asked[2..]].into_iter().enumerate() {
        for verb in verbs {
            let refused = change(&cluster, server, runs, verb).await;
            refused.error_code(404, "sandbox_lost");
        }
        let shown = sandbox(&cluster, server, "GET", runs).await;
        shown.error_code(404, "sandbox_lost");
        let refused = change(&cluster, server, rests, "connect").await;
        refused.error_code(503, "sandbox_node_lost");
    }
    for (server, gone) in [killed, ended].into_iter().enumerate() {
        let killed = sandbox(&cluster, server, "DELETE", gone).await;
        assert_eq!(killed.status, 204, "{}", killed.text);
    }

    second.reconnect();
    until("its row says that it is back", || async {
        let row = cluster.store.node_by_id("second").await.unwrap();
        row.unwrap().lost_at.is_none()
    })
    .await;
    for server in [0, 1] {
        let shown = sandbox(&cluster, server, "GET", runs).await;
        assert_eq!(shown.status, 200, "{}", shown.text);
    }
    for (server, id, verb, done) in [
        (0, runs, "timeout", 204),
        (1, runs, "timeout", 204),
        (0, rests, "connect", 201),
        (1, rests, "connect", 200),
    ] {
        // Its connection to the node may not be up yet.
        until("it is done", || async {
            let answer = change(&cluster, server, id, verb).await;
            if answer.status != done {
                answer.error_code(503, "sandbox_node_unreachable");
            }
            answer.status == done
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_counts_as_connected_and_does_not_answer_may_be_lost() {
    let (cluster, second) = two_nodes(|_| {}).await;
    let made = made_at(&cluster, &second, 2).await;
    second.fall_silent();
    let row = cluster.store.node_by_id("second").await.unwrap();
    let generation = row.unwrap().generation;
    let refused = change(&cluster, 0, &made[0], "timeout").await;
    refused.error_code(503, "sandbox_node_unreachable");
    let fenced = cluster.store.node_fence("second", generation).await;
    fenced.unwrap();
    let refused = change(&cluster, 1, &made[0], "timeout").await;
    refused.error_code(404, "sandbox_lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn places_of_a_lost_node_are_free_until_it_returns() {
    let (cluster, second) = two_nodes(|config| config.limits.sandboxes_max = 3).await;
    let made = made_at(&cluster, &second, 3).await;
    drop(cluster.try_create(0).await.error(429));
    lose(&cluster, &second, &made[0]).await;
    for server in 0..2 {
        until("there is a place again", || async {
            cluster.try_create(server).await.status == 201
        })
        .await;
    }
    let third = cluster.create(0).await;
    drop(cluster.try_create(1).await.error(429));
    let total = |server: usize| cluster.controls[server].sandbox_total();
    until("they are not counted", || async {
        total(0) == 3 && total(1) == 3
    })
    .await;

    comes_back(&cluster, &second).await;
    until("they are counted again", || async {
        total(0) == 6 && total(1) == 6
    })
    .await;
    assert_eq!(sandbox(&cluster, 0, "DELETE", &third).await.status, 204);
    drop(cluster.try_create(1).await.error(429));
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_of_a_lost_node_end_what_was_to_end() {
    let (cluster, second) = two_nodes(|_| {}).await;
    let stays = create_at(&cluster, &second, BASE).await;
    let ends = r#"{"templateID":"base","timeout":6}"#;
    let ends = create_at(&cluster, &second, ends).await;
    let pauses = r#"{"templateID":"base","timeout":6,"autoPause":true}"#;
    let pauses = create_at(&cluster, &second, pauses).await;
    lose(&cluster, &second, &stays).await;
    until("its row ends", || async {
        let state = cluster.state_of(&ends).await;
        matches!(
            state,
            Some(SandboxState::Dead {
                reason: EndReason::Expired,
                ..
            })
        )
    })
    .await;
    let state = cluster.state_of(&pauses).await;
    assert!(
        !matches!(state, Some(SandboxState::Dead { .. })),
        "{state:?}"
    );
    comes_back(&cluster, &second).await;
    until("its pause is noted", || async {
        let state = cluster.state_of(&pauses).await;
        matches!(state, Some(SandboxState::Paused { .. }))
    })
    .await;
    // What the keeper knows at once the other server sees within seconds.
    until("it goes on", || async {
        change(&cluster, 0, &pauses, "connect").await.status == 201
    })
    .await;
}

fn lost_soon(config: &mut ControlConfig) {
    if let Sharing::Several(shared) = &mut config.servers {
        shared.times = ServerTimes {
            lost_after: Some(Duration::from_secs(4)),
            ..TIMES
        };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_given_up_while_another_is_reached() {
    let (cluster, second) = two_nodes(lost_soon).await;
    let made = made_at(&cluster, &second, 1).await;
    second.disconnect();
    until("it is away", || async {
        let refused = change(&cluster, 0, &made[0], "timeout").await;
        refused.status == 503
    })
    .await;
    until("it is lost", || is_lost(&cluster, 1, &second)).await;
    // Nobody is reached: that says nothing of the last one.
    cluster.node.disconnect();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!is_lost(&cluster, 0, &cluster.node).await);
    cluster.node.reconnect();
    comes_back(&cluster, &second).await;
    until("it runs", || async {
        sandbox(&cluster, 0, "GET", &made[0]).await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_ended_where_the_row_is_not() {
    let (cluster, second) = two_nodes(|_| {}).await;
    let here = &cluster.node;
    let made = made_at(&cluster, here, 4).await;
    let [runs, rests, begun, paused] = &made[..] else {
        unreachable!("four were made");
    };
    for rests in [rests, paused] {
        assert_eq!(change(&cluster, 0, rests, "pause").await.status, 204);
    }
    let another = ServerBeat {
        id: "another".into(),
        address: None,
        version: "1".into(),
    };
    cluster.store.server_beat(&another).await.unwrap();
    // Two that another server is making; the deadline of one comes before its row names the node.
    for made in [begun, paused] {
        second.run_unrecorded(made, &cluster.team, "another");
    }
    second.pause_by_deadline(paused);
    // As one left by a node that was away.
    for copy in [runs, rests] {
        second.run_stranger(copy, &cluster.team, true);
    }
    until("the copies are gone", || async {
        cluster.store.server_beat(&another).await.unwrap();
        let running = second.running();
        for made in [begun, paused] {
            assert!(running.contains(made), "whoever makes it lives");
        }
        !running.contains(runs) && !running.contains(rests)
    })
    .await;
    // Now that server is silent.
    until("they go as well", || async { second.running().is_empty() }).await;
    for id in &made {
        assert!(here.running().contains(id));
        assert_eq!(sandbox(&cluster, 1, "GET", id).await.status, 200);
    }
    assert_eq!(change(&cluster, 0, runs, "timeout").await.status, 204);
    assert_eq!(change(&cluster, 1, rests, "connect").await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_wrote_down_is_known_before_its_node_is_back() {
    // A second look would find it as well, and not in this time.
    let slow = |config: &mut ControlConfig| config.row_grace = Duration::from_secs(60);
    let (cluster, second) = two_nodes(slow).await;
    let made = made_at(&cluster, &second, 1).await;
    assert_eq!(change(&cluster, 0, &made[0], "pause").await.status, 204);
    lose_untold(&cluster, &second).await;
    second.resume_unheard(&made[0]);
    second.reconnect();
    until("its row says that it is back", || async {
        let row = cluster.store.node_by_id("second").await.unwrap();
        row.unwrap().lost_at.is_none()
    })
    .await;
    let state = cluster.state_of(&made[0]).await;
    let runs = matches!(state, Some(SandboxState::Running { .. }));
    assert!(runs, "{state:?}");
}
