//! One sandbox for each key (`api.md` 3.0).

use crate::world::{Call, World, until};

fn create(world: &World, key: &str, body: &str) -> Call {
    let call = world.api("POST", "/v2/sandboxes");
    call.header("idempotency-key", key).json(body)
}

const BODY: &str = r#"{"templateID":"base"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_gets_the_same_answer_and_another_one_422() {
    let mut world = World::new().await;
    let first = create(&world, "key-1", BODY).send().await;
    assert_eq!(first.status, 201);
    let again = create(&world, "key-1", BODY).send().await;
    assert_eq!((again.status.as_u16(), again.json()), (201, first.json()));
    world.restart().await;
    let later = create(&world, "key-1", BODY).send().await;
    assert_eq!((later.status.as_u16(), later.json()), (201, first.json()));
    assert_eq!(world.node.creates(), 1);
    let other = create(&world, "key-1", r#"{"templateID":"base","timeout":5}"#);
    other
        .send()
        .await
        .error_code(422, "idempotency_request_mismatch");
    let new = create(&world, "key-2", BODY).send().await;
    assert_ne!(new.json()["sandboxID"], first.json()["sandboxID"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_busy_while_its_first_request_runs() {
    let world = World::new().await;
    world.node.hold_creates();
    let first = tokio::spawn(create(&world, "k", BODY).send());
    until("the node has the order", || async {
        world.node.creates() == 1
    })
    .await;
    let second = create(&world, "k", BODY).send().await;
    second.error_code(409, "idempotency_in_progress");
    world.node.release_creates();
    assert_eq!(first.await.unwrap().status, 201);
    assert_eq!(create(&world, "k", BODY).send().await.status, 201);
    assert_eq!(world.node.creates(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_request_frees_its_key() {
    let world = World::new().await;
    let failure = casemate_rpc::NodeError::Full {
        what: "memory".into(),
    };
    world.node.fail_creates(Some(failure));
    let answer = create(&world, "k", BODY).send().await;
    answer.error(503);
    assert_eq!(answer.header("should-retry"), None);
    assert_eq!(answer.header("retry-after"), Some("1"));
    world.node.fail_creates(None);
    assert_eq!(create(&world, "k", BODY).send().await.status, 201);
    create(&world, "bad", r#"{"templateID":"nope"}"#)
        .send()
        .await
        .error(404);
    assert_eq!(create(&world, "bad", BODY).send().await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_process_died_has_no_known_outcome() {
    let mut world = World::new().await;
    use casemate_store::{Idempotency, KeyClaim};
    let digest = {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update(b"v2\0");
        hash.update(BODY);
        hash.finalize().into()
    };
    let claim = KeyClaim {
        team: world.team.clone(),
        key: "k".into(),
        owner: "dead".into(),
        at: casemate_types::Timestamp::now(),
    };
    let begun = world.store.idempotency_begin(&claim, &digest).await;
    begun.unwrap();
    world.restart().await;
    let answer = create(&world, "k", BODY).send().await;
    answer.error_code(409, "idempotency_outcome_unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_keys_are_400() {
    let world = World::new().await;
    let long = "x".repeat(256);
    for key in ["", "UPPER", "a b", "ä", &long] {
        create(&world, key, BODY).send().await.error(400);
    }
    assert_eq!(world.node.creates(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teams_limit_is_not_asked_again_by_a_key_either() {
    let world = World::with(|config| config.limits.sandboxes_max = 1).await;
    world.create("").await;
    let answer = create(&world, "k", BODY).send().await;
    answer.error(429);
    assert_eq!(answer.header("should-retry"), Some("false"));
    assert_eq!(answer.header("retry-after"), None);
}
