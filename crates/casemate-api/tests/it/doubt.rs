//! The store fails at a write: it may have been written, or was not.

use casemate_catalog::Catalog;
use casemate_store::Sandboxes;
use casemate_store::testing::Fault;
use casemate_types::SandboxId;

use crate::world::{Answer, World, until};

const BODY: &str = r#"{"templateID":"base"}"#;

async fn snapshot(world: &World, id: &SandboxId) -> Answer {
    let call = world.api("POST", &format!("/sandboxes/{id}/snapshots"));
    call.json(r#"{"name":"mine:v1"}"#).send().await
}

async fn create_with_key(world: &World, key: &str) -> Answer {
    let call = world.api("POST", "/v2/sandboxes");
    call.header("idempotency-key", key).json(BODY).send().await
}

/// What comes of it once its key is not in progress any more.
async fn created_with_key(world: &World, key: &str) -> Answer {
    until("the key is not in progress", || async {
        let answer = create_with_key(world, key).await;
        assert!(
            [201, 409].contains(&answer.status.as_u16()),
            "{}",
            answer.text
        );
        answer.status == 201
    })
    .await;
    create_with_key(world, key).await
}

/// Its name leads to it, and not to the one whose place it took.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_whose_row_was_written_keeps_its_files() {
    let (mut world, store) = World::with_faults().await;
    let id = world.create("").await;
    let begin = async |world: &World| {
        let made = world.api("POST", "/v2/sandboxes");
        let made = made.json(r#"{"templateID":"first/mine:v1"}"#).send().await;
        assert_eq!(made.status, 201, "{}", made.text);
        let made = SandboxId::parse(made.json()["sandboxID"].as_str().unwrap()).unwrap();
        world.node.began_with(&made).unwrap()
    };
    assert_eq!(snapshot(&world, &id).await.status, 201);
    let former = begin(&world).await;
    store.fail("snapshot_insert", Fault::AnswerLost);
    snapshot(&world, &id).await.error(503);
    store.heal();
    let files = begin(&world).await;
    assert_ne!(files, former);
    // Of this one there is no row.
    store.fail("snapshot_insert", Fault::Away);
    snapshot(&world, &id).await.error(503);
    assert_eq!(store.failed("snapshot_insert"), 2);
    // A process that ends has done what it had begun, and the next one compares.
    world.restart().await;
    until("what nobody wants is gone", || async {
        let left = world.node.snapshot_ids();
        assert!(left.contains(&files), "{left:?}");
        left.len() == 1
    })
    .await;
    assert_eq!(begin(&world).await, files);
}

/// Its client was told to ask again.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_freed_however_long_the_store_fails() {
    let (world, store) = World::with_faults().await;
    for fault in [Fault::Away, Fault::AnswerLost] {
        store.fail("sandbox_insert", Fault::Away);
        store.fail("idempotency_abandon", fault);
        let key = format!("{fault:?}").to_lowercase();
        let failed = store.failed("idempotency_abandon");
        create_with_key(&world, &key).await.error(503);
        until("it was tried again", || async {
            store.failed("idempotency_abandon") > failed + 1
        })
        .await;
        if fault == Fault::Away {
            let refused = create_with_key(&world, &key).await;
            refused.error_code(409, "idempotency_in_progress");
        }
        store.heal();
        created_with_key(&world, &key).await;
    }
    until("what failed is gone", || async {
        world.node.running().len() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_have_been_taken_is_freed() {
    let (world, store) = World::with_faults().await;
    store.fail("idempotency_begin", Fault::AnswerLost);
    create_with_key(&world, "k").await.error(503);
    until("it was tried again", || async {
        store.failed("idempotency_begin") > 1
    })
    .await;
    assert_eq!(world.node.creates(), 0);
    store.heal();
    created_with_key(&world, "k").await;
    assert_eq!(world.node.creates(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_kept_however_long_the_store_fails() {
    let (world, store) = World::with_faults().await;
    for fault in [Fault::Away, Fault::AnswerLost] {
        store.fail("idempotency_finish", fault);
        let key = format!("{fault:?}").to_lowercase();
        let first = create_with_key(&world, &key).await;
        assert_eq!(first.status, 201, "{}", first.text);
        store.heal();
        let again = created_with_key(&world, &key).await;
        assert_eq!(again.json(), first.json());
    }
    assert_eq!(world.node.creates(), 2);
    assert!(store.failed("idempotency_finish") >= 2);
}

/// Otherwise its traffic would go on to wake it, in vain.
#[tokio::test(flavor = "multi_thread")]
async fn the_route_of_one_that_goes_on_leads_to_it() {
    let (world, store) = World::with_faults().await;
    let id = world.create("").await;
    let path = format!("/sandboxes/{id}");
    let paused = world.api("POST", &format!("{path}/pause")).send().await;
    assert_eq!(paused.status, 204, "{}", paused.text);
    store.fail("sandbox_resume", Fault::AnswerLost);
    let connect = world.api("POST", &format!("{path}/connect"));
    let refused = connect.json(r#"{"timeout":60}"#).send().await;
    refused.error(503);
    assert!(store.failed("sandbox_resume") > 0);
    store.heal();
    until("its route leads to it", || async {
        let route = world.catalog.route_by_id(&id).await.unwrap();
        route.is_some_and(|route| !route.asleep)
    })
    .await;
    let listed = world.api("GET", &path).send().await;
    assert_eq!(listed.json()["state"], "running");
}

/// Its client was told nothing, and whoever looks is told the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_was_written_reaches_the_node() {
    let (world, store) = World::with_faults().await;
    let id = world.create("").await;
    let before = world.node.ends_at(&id).unwrap();
    store.fail("sandbox_set_deadline", Fault::AnswerLost);
    let path = format!("/sandboxes/{id}/timeout");
    let set = world.api("POST", &path).json(r#"{"timeout":1000}"#);
    set.send().await.error(503);
    until("the node has it", || async {
        world.node.ends_at(&id).unwrap() > before
    })
    .await;
}

/// Whichever of the two the row has.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_policy_in_doubt_is_the_rows_in_the_end() {
    for (fault, denied) in [(Fault::AnswerLost, 2), (Fault::Away, 1)] {
        let (world, store) = World::with_faults().await;
        let id = world.create(r#","network":{"denyOut":["1.1.1.1"]}"#).await;
        store.fail("sandbox_set_network", fault);
        let path = format!("/sandboxes/{id}/network");
        let put = world.api("PUT", &path);
        let put = put.json(r#"{"denyOut":["1.1.1.1","8.8.8.8"]}"#);
        put.send().await.error(503);
        let promised = world.store.sandbox_by_id(&id).await.unwrap().unwrap();
        let promised = promised.network.compile().unwrap();
        assert_eq!(promised.deny.len(), denied, "{fault:?}");
        until("the node has the row's", || async {
            world.node.policy(&id).unwrap() == promised
        })
        .await;
    }
}
