//! Snapshots and forks.

use std::collections::BTreeSet;
use std::sync::Arc;

use casemate_rpc::NodePort;
use casemate_types::{SandboxId, SnapshotId};
use serde_json::Value;

use crate::world::{ACCESS_TOKEN, Answer, World, until};

async fn post(world: &World, id: &SandboxId, what: &str, body: &str) -> Answer {
    let path = format!("/sandboxes/{id}/{what}");
    world.api("POST", &path).json(body).send().await
}

async fn snapshot(world: &World, id: &SandboxId, body: &str) -> String {
    let answer = post(world, id, "snapshots", body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.headers["casemate-memory"], "files-only");
    answer.json()["snapshotID"].as_str().unwrap().to_owned()
}

async fn listed(world: &World, query: &str) -> Vec<String> {
    let path = format!("/snapshots{query}");
    let rows = world.api("GET", &path).send().await.json();
    let id = |row: &Value| row["snapshotID"].as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(id).collect()
}

fn path_of(snapshot: &str) -> String {
    let escaped = snapshot.replace('/', "%2F").replace(':', "%3A");
    format!("/templates/{escaped}")
}

async fn create_from(world: &World, snapshot: &str) -> Answer {
    let body = format!(r#"{{"templateID":"{snapshot}"}}"#);
    world.api("POST", "/v2/sandboxes").json(&body).send().await
}

fn id_of(answer: &Answer) -> SandboxId {
    let body = answer.json();
    SandboxId::parse(body["sandboxID"].as_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_a_template_until_it_is_deleted() {
    let world = World::new().await;
    let id = world.create("").await;
    let plain = snapshot(&world, &id, "{}").await;
    assert!(plain.ends_with(":default") && plain.len() == 28, "{plain}");
    let named = snapshot(&world, &id, r#"{"name":"Mine:V1"}"#).await;
    assert_eq!(named, "first/mine:v1");
    let same = snapshot(&world, &id, r#"{"name":"first/mine","memory":false}"#).await;
    assert_eq!(same, "first/mine:default");
    assert_eq!(
        listed(&world, "").await,
        [same.clone(), named.clone(), plain.clone()]
    );
    assert_eq!(
        listed(&world, "?name=mine:v1").await,
        std::slice::from_ref(&named)
    );
    assert_eq!(
        listed(&world, "?name=first/mine").await,
        [same.clone(), named.clone()]
    );
    assert_eq!(
        listed(&world, &format!("?name={plain}")).await,
        std::slice::from_ref(&plain)
    );
    assert_eq!(listed(&world, "?name=nothing").await, [""; 0]);
    assert_eq!(listed(&world, &format!("?sandboxID={id}")).await.len(), 3);
    assert_eq!(listed(&world, "?sandboxID=iother").await, [""; 0]);
    let rows = world.api("GET", "/snapshots?limit=1").send().await;
    assert_eq!(rows.json()[0]["names"][0], "first/mine");
    let token = rows.headers["x-next-token"].to_str().unwrap();
    let rest = listed(&world, &format!("?limit=2&nextToken={token}")).await;
    assert_eq!(rest, [named.clone(), plain.clone()]);

    let files = world.node.snapshot_ids();
    assert_eq!(files.len(), 3);
    let made = create_from(&world, &named).await;
    assert_eq!(made.status, 201);
    let child = id_of(&made);
    assert!(files.contains(&world.node.began_with(&child).unwrap()));
    for wrong in ["first/mine:v9", "first/other", "second/mine"] {
        create_from(&world, wrong).await.error(404);
    }

    let refused = world
        .api("DELETE", &path_of(&named))
        .send()
        .await
        .error(400);
    assert!(refused.contains("running sandboxes using it"), "{refused}");
    let killed = world
        .api("DELETE", &format!("/sandboxes/{child}"))
        .send()
        .await;
    assert_eq!(killed.status, 204);
    // Its source may be gone, and its tag says nothing: all of the name go.
    let killed = world
        .api("DELETE", &format!("/sandboxes/{id}"))
        .send()
        .await;
    assert_eq!(killed.status, 204);
    assert_eq!(
        world.api("DELETE", &path_of(&named)).send().await.status,
        204
    );
    assert_eq!(listed(&world, "").await, std::slice::from_ref(&plain));
    until("their files are gone", || async {
        world.node.snapshot_ids().len() == 1
    })
    .await;
    world
        .api("DELETE", &path_of(&named))
        .send()
        .await
        .error(404);
    create_from(&world, &named).await.error(404);
    assert_eq!(
        world.api("DELETE", &path_of(&plain)).send().await.status,
        204
    );
    until("all files are gone", || async {
        world.node.snapshot_ids().is_empty()
    })
    .await;
    world
        .api("DELETE", "/templates/base")
        .send()
        .await
        .error(403);

    let id = world.create("").await;
    let named = snapshot(&world, &id, r#"{"name":"by-token"}"#).await;
    let by_token = async |path: &str| {
        let token = format!("Bearer {ACCESS_TOKEN}");
        let call = world.call("DELETE", path).header("authorization", &token);
        call.send().await
    };
    assert_eq!(by_token(&path_of(&named)).await.status, 204);
    by_token(&path_of(&named)).await.error(404);
    by_token("/templates/base").await.error(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_serves_the_new_files_at_once() {
    let world = World::new().await;
    let id = world.create("").await;
    let mut before = SnapshotId::random();
    for _ in 0..3 {
        let named = snapshot(&world, &id, r#"{"name":"moves"}"#).await;
        let made = id_of(&create_from(&world, &named).await);
        let now = world.node.began_with(&made).unwrap();
        assert_ne!(now, before);
        before = now;
    }
    until("old files are gone", || async {
        world.node.snapshot_ids().len() == 1
    })
    .await;
    assert_eq!(listed(&world, "").await, ["first/moves:default"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_snapshot_goes_meanwhile_takes_what_the_name_leads_to() {
    let world = Arc::new(World::new().await);
    let id = world.create("").await;
    let named = snapshot(&world, &id, r#"{"name":"moves"}"#).await;
    let begin = || {
        world.node.hold_creates();
        let (there, named) = (world.clone(), named.clone());
        tokio::spawn(async move { create_from(&there, &named).await })
    };
    let create = begin();
    until("the create is at the node", || async {
        world.node.creates() == 2
    })
    .await;
    let old = world.node.snapshot_ids();
    snapshot(&world, &id, r#"{"name":"moves"}"#).await;
    until("the old files are gone", || async {
        world.node.snapshot_ids().is_disjoint(&old)
    })
    .await;
    world.node.release_creates();
    let made = create.await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text);
    let files = world.node.began_with(&id_of(&made)).unwrap();
    assert_eq!(world.node.snapshot_ids(), BTreeSet::from([files]));
    let killed = world.api("DELETE", &format!("/sandboxes/{}", id_of(&made)));
    assert_eq!(killed.send().await.status, 204);

    let create = begin();
    until("the create is at the node", || async {
        world.node.creates() == 4
    })
    .await;
    let deleted = world.api("DELETE", &path_of(&named)).send().await;
    assert_eq!(deleted.status, 204);
    until("all files are gone", || async {
        world.node.snapshot_ids().is_empty()
    })
    .await;
    world.node.release_creates();
    let message = create.await.unwrap().error(404);
    assert_eq!(message, "template 'first/moves' not found");
    assert_eq!(world.node.running(), [id]);
    assert_eq!(world.control.sandbox_total(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_snapshot_is_named() {
    let world = World::new().await;
    let id = world.create("").await;
    let check = async |body: &str, status: u16, words: &str| {
        let message = post(&world, &id, "snapshots", body).await.error(status);
        assert!(message.contains(words), "{body}: {message}");
    };
    check(r#"{"name":"a/b/c"}"#, 400, "Invalid name").await;
    check(
        r#"{"name":"second/x"}"#,
        400,
        "must match your team 'first'",
    )
    .await;
    let long = format!(r#"{{"name":"{}"}}"#, "a".repeat(129));
    check(&long, 400, "more than 128 characters").await;
    let by_id = r#"{"name":"a:0fe0c5b4-4a2e-4b0c-9d0e-6c5b8f2d7a11"}"#;
    check(by_id, 400, "tag cannot be a UUID").await;
    let base = format!(r#"{{"name":"{}"}}"#, world.node.template());
    check(&base, 409, "is already used").await;
    check(r#"{"memory":true}"#, 400, "cannot be kept").await;
    let code = post(&world, &id, "snapshots", r#"{"memory":true}"#)
        .await
        .json();
    assert_eq!(code["error_code"], "snapshot_memory_unsupported");
    let stranger = SandboxId::random();
    post(&world, &stranger, "snapshots", "{}").await.error(404);
    assert_eq!(post(&world, &id, "pause", "{}").await.status, 204);
    check("{}", 404, "doesn't exist").await;
    let fork = post(&world, &id, "fork", "{}").await.error(409);
    assert!(
        fork.contains("is paused and cannot be forked; resume it first"),
        "{fork}"
    );
    assert!(world.node.snapshot_ids().is_empty());
    world
        .api("GET", "/snapshots?name=second/x")
        .send()
        .await
        .error(400);
    world
        .api("GET", "/snapshots?nextToken=x")
        .send()
        .await
        .error(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_are_sandboxes_of_their_own() {
    let world = Arc::new(World::new().await);
    let parent = world
        .create(r#","metadata":{"a":"b"},"envVars":{"KEY":"v"},"timeout":600"#)
        .await;
    let answer = post(&world, &parent, "fork", r#"{"count":5,"timeout":100}"#).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.headers["casemate-memory"], "files-only");
    let mut ids = BTreeSet::from([parent.to_string()]);
    let mut tokens = BTreeSet::new();
    for fork in answer.json().as_array().unwrap() {
        let fork = &fork["sandbox"];
        let id = fork["sandboxID"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()));
        assert!(tokens.insert(fork["envdAccessToken"].as_str().unwrap().to_owned()));
        let detail = world
            .api("GET", &format!("/sandboxes/{id}"))
            .send()
            .await
            .json();
        assert_eq!(detail["metadata"]["a"], "b");
        let id = SandboxId::parse(id).unwrap();
        assert_eq!(world.node.envs(&id).unwrap()["KEY"], "v");
        assert!(world.node.began_with(&id).is_some());
    }
    assert_eq!((ids.len(), tokens.len()), (6, 5));
    until("the files are dropped", || async {
        world.node.snapshot_ids().is_empty()
    })
    .await;
    for (body, words) in [
        (r#"{"count":0}"#, "Count must be at least 1"),
        (r#"{"count":-1}"#, "Count must be at least 1"),
        (r#"{"count":101}"#, "Count cannot be greater than 100"),
        (r#"{"timeout":0}"#, "Timeout must be greater than 0"),
        (
            r#"{"timeout":100000}"#,
            "Timeout cannot be greater than 24 hours",
        ),
    ] {
        let message = post(&world, &parent, "fork", body).await.error(400);
        assert!(message.contains(words), "{message}");
    }
    post(&world, &SandboxId::random(), "fork", "{}")
        .await
        .error(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_that_have_no_place_say_so_each() {
    let world = World::with(|config| config.limits.sandboxes_max = 4).await;
    let parent = world.create("").await;
    let above = post(&world, &parent, "fork", r#"{"count":4}"#)
        .await
        .error(400);
    assert!(
        above.contains("maximum number of concurrent sandboxes (4)"),
        "{above}"
    );
    world.create("").await;
    let answer = post(&world, &parent, "fork", r#"{"count":3,"timeout":60}"#).await;
    assert_eq!(answer.status, 201);
    let results = answer.json();
    let results = results.as_array().unwrap();
    let refused: Vec<_> = results.iter().filter_map(|one| one.get("error")).collect();
    assert_eq!((results.len(), refused.len()), (3, 1));
    assert_eq!(refused[0]["code"], 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_nobody_wants_go_and_those_of_snapshots_stay() {
    let mut world = World::new().await;
    let id = world.create("").await;
    snapshot(&world, &id, "{}").await;
    let wanted = world.node.snapshot_ids();
    // A crash came before its row.
    world
        .node
        .snapshot(&id, &SnapshotId::random())
        .await
        .unwrap();
    world.restart().await;
    until("it is gone", || async {
        world.node.snapshot_ids() == wanted
    })
    .await;
    assert_eq!(listed(&world, "").await.len(), 1);
}
