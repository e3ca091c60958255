//! One of two servers dies, or goes.

use std::time::Duration;

use casemate_store::{BuildId, ServerBeat};
use casemate_types::{BuildStatus, SandboxId, SandboxState};

use super::cluster::Cluster;
use crate::world::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_dies_is_followed_and_ends_are_noted() {
    let cluster = Cluster::new().await;
    let (keeper, sandbox) = (cluster.keeper().await, cluster.create(0).await);
    let other = 1 - keeper;
    let seen = cluster.create(keeper).await;
    cluster.node.exit(&seen);
    until("the keeper notes an end", || async {
        let state = cluster.state_of(&seen).await;
        matches!(state, Some(SandboxState::Dead { .. }))
    })
    .await;
    cluster.controls[keeper].die();
    // Nobody is told.
    cluster.node.lose(&sandbox);
    until("the other one notes it", || async {
        let state = cluster.state_of(&sandbox).await;
        matches!(state, Some(SandboxState::Dead { .. }))
    })
    .await;
    assert_eq!(cluster.keeper().await, other);
    let later = cluster.create(other).await;
    cluster.node.exit(&later);
    until("and what comes", || async {
        let state = cluster.state_of(&later).await;
        matches!(state, Some(SandboxState::Dead { .. }))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_goes_gives_its_nodes() {
    let cluster = Cluster::new().await;
    let keeper = cluster.keeper().await;
    cluster.controls[keeper].shutdown().await;
    let listed = cluster.store.server_list(Duration::from_secs(3600)).await;
    let left: Vec<String> = listed.unwrap().into_iter().map(|one| one.id).collect();
    assert_eq!(left, [cluster.controls[1 - keeper].server()]);
    until("the other one has it", || async {
        let name = format!("node/{}", cluster.node.name());
        let lasts = Duration::from_millis(1);
        let asked = cluster.store.lease_take(&name, "a test", lasts).await;
        matches!(asked.unwrap(), casemate_store::LeaseTaken::HeldBy { holder, .. }
            if holder == cluster.controls[1 - keeper].server())
    })
    .await;
}

/// As of one that stood still for a while: it is dead to the others, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_was_given_up_meanwhile_is_not_answered_with_success() {
    let cluster = Cluster::new().await;
    cluster.node.hold_answers();
    let creating = tokio::spawn(cluster.try_create(0));
    until("the node has it", || async {
        cluster.node.running().len() == 1
    })
    .await;
    let made = cluster.node.running().remove(0);
    cluster.controls[0].die();
    until("it is ended as nobody's", || async {
        cluster.node.running().is_empty()
    })
    .await;
    cluster.node.release_creates();
    let answer = creating.await.unwrap();
    assert_eq!(answer.status, 504, "{}", answer.text);
    let state = cluster.state_of(&made).await;
    assert!(
        matches!(state, Some(SandboxState::Dead { .. })),
        "{state:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_server_is_making_stays_while_it_lives() {
    let cluster = Cluster::new().await;
    let another = ServerBeat {
        id: "another".into(),
        address: None,
        version: "1".into(),
    };
    let [theirs, warm, nobodys] = [(); 3].map(|()| SandboxId::random());
    let (node, team) = (&cluster.node, &cluster.team);
    // Long enough ago for silence to mean death.
    until("the dead go", || async {
        cluster.store.server_beat(&another).await.unwrap();
        if !node.running().contains(&theirs) {
            node.run_unrecorded(&theirs, team, "another");
            node.run_unrecorded(&nobodys, team, "one that died");
            node.run_warm_of(&warm, team, "another");
        }
        !node.running().contains(&nobodys)
    })
    .await;
    let running = node.running();
    assert!(running.contains(&theirs) && running.contains(&warm));
    // Now it is silent.
    until("they go with it", || async { node.running().is_empty() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_and_keys_of_a_server_that_died_are_given_up() {
    let cluster = Cluster::new().await;
    let asked = cluster.api(0, "POST", "/v3/templates");
    let asked = asked.json(r#"{"name":"mine"}"#).send().await;
    assert_eq!(asked.status, 202, "{}", asked.text);
    let asked = asked.json();
    let text = |name: &str| asked[name].as_str().unwrap().to_owned();
    let (template, build) = (text("templateID"), text("buildID"));
    let path = format!("/v2/templates/{template}/builds/{build}");
    let begun = cluster.api(0, "POST", &path);
    let begun = begun
        .json(r#"{"fromImage":"debian:bookworm"}"#)
        .send()
        .await;
    assert_eq!(begun.status, 202, "{}", begun.text);
    cluster.node.hold_creates();
    let create = cluster.api(0, "POST", "/v2/sandboxes");
    let create = create.header("idempotency-key", "lost");
    let _lost = tokio::spawn(create.json(r#"{"templateID":"base"}"#).send());
    until("the node has the order", || async {
        cluster.node.creates() == 1
    })
    .await;
    let again = || {
        let create = cluster.api(1, "POST", "/v2/sandboxes");
        let create = create.header("idempotency-key", "lost");
        create.json(r#"{"templateID":"base"}"#).send()
    };
    again().await.error_code(409, "idempotency_in_progress");
    let id = BuildId::parse(&build).unwrap();
    let status = async || {
        let record = cluster.store.build_record(&id).await.unwrap();
        record.unwrap().status
    };
    assert_eq!(status().await, BuildStatus::Building);
    cluster.controls[0].die();
    until("the build has failed", || async {
        status().await == BuildStatus::Failed
    })
    .await;
    until("the key's outcome is not known", || async {
        again().await.json()["error_code"] == "idempotency_outcome_unknown"
    })
    .await;
}
