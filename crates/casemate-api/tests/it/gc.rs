//! `POST /builds/gc`: what goes, what stays, and what the janitor takes by itself.

use std::time::Duration;

use casemate_rpc::NodePort;
use casemate_store::testing::a_request;
use casemate_store::{
    Build, BuildCache, BuildId, Builds, CacheKey, CachedLayer, Resolution, Standing, Teams,
    Templates, Upload,
};
use casemate_types::template::TemplateRef;
use casemate_types::{
    BuildContext, Distribution, LayerId, SnapshotId, TemplateId, Timestamp, steady,
};
use serde_json::{Value, json};

use crate::builds::{Asked, ask, start};
use crate::world::{API_KEY, Answer, World, until};

const HASH: &str = "49ccf0a0a1bce4bd8b8c004d206fb8b1692166706930faa40827886fa70b08f5";

async fn gc(world: &World, body: Value) -> Value {
    let call = world.api("POST", "/builds/gc").json(&body.to_string());
    let answer = call.send().await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn gone(builds: u64, steps: u64, layers: u64, uploads: u64, bytes: u64) -> Value {
    json!({"builds": builds, "steps": steps, "layers": layers, "uploads": uploads, "bytes": bytes})
}

/// Rehearsed first, which says the same and changes nothing.
async fn checked_gc(world: &World, expected: Value) {
    for _ in 0..2 {
        assert_eq!(gc(world, json!({"dryRun": true})).await, expected);
    }
    assert_eq!(gc(world, json!({})).await, expected);
}

/// It becomes ready, with a layer of its own.
async fn finish_over(world: &World, asked: &Asked, layer: &LayerId) {
    assert_eq!(start(world, asked).await.status, 202);
    let base = TemplateRef::parse("base").unwrap();
    let base = world.store.template_resolve("", &base).await.unwrap();
    let Resolution::Found { build: base, .. } = base else {
        panic!("the node brought no base");
    };
    let build = Build {
        id: BuildId::parse(&asked.build).unwrap(),
        template: TemplateId::parse(&asked.template).unwrap(),
        layers: vec![layer.to_string(), "base".into()],
        ..base
    };
    let now = Timestamp::now();
    assert!(world.store.build_finish(&build, 1, now).await.unwrap());
}

async fn ready_over(world: &World, name: &str, layer: &LayerId) -> Asked {
    let asked = ask(world, &json!({"name": name}).to_string()).await;
    finish_over(world, &asked, layer).await;
    asked
}

/// A result of a step, used so many seconds ago.
async fn cache(world: &World, layers: &[&LayerId], files: Option<&SnapshotId>, age: u64) {
    let names = layers.iter().map(|layer| layer.to_string());
    let state = CachedLayer {
        layers: names.chain(["base".into()]).collect(),
        files: files.cloned(),
        context: BuildContext {
            user: "user".into(),
            workdir: None,
            envs: std::collections::BTreeMap::new(),
        },
        distribution: Distribution::Other,
        size_mib: 1,
    };
    let half = BuildId::random().to_string().replace('-', "");
    let key = CacheKey::parse(&format!("{half}{half}")).unwrap();
    let at = Timestamp::now() - Duration::from_secs(age);
    let put = world.store.layer_put(&world.team, &key, &state, at);
    put.await.unwrap();
}

/// The node has these; their rows are there.
async fn at_node(world: &World, layers: &[&LayerId], files: &[&SnapshotId]) {
    let sandbox = world.create("").await;
    let made = SnapshotId::random_of_build();
    world.node.snapshot(&sandbox, &made).await.unwrap();
    for layer in layers {
        world.node.seal(&made, layer).await.unwrap();
    }
    world.node.remove_snapshot(&made).await.unwrap();
    for files in files {
        world.node.snapshot(&sandbox, files).await.unwrap();
    }
    let path = format!("/sandboxes/{sandbox}");
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
}

async fn upload(world: &World, asked: &Asked, content: &'static str) {
    let path = format!("/templates/{}/files/{HASH}", asked.template);
    let link = world.api("GET", &path).send().await.json();
    let url = link["url"].as_str().unwrap();
    let path = &url[url.find("/uploads/").unwrap()..];
    let put = world.call("PUT", path).body(content.into()).send().await;
    assert_eq!(put.status, 200, "{}", put.text);
}

fn uploads(world: &World) -> usize {
    let dir = world.uploads.path().join(world.team.as_str());
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

async fn create(world: &World, template: &str) -> Answer {
    let body = json!({"templateID": template, "autoPause": true}).to_string();
    world.api("POST", "/v2/sandboxes").json(&body).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_needs_goes_and_its_room_comes_back() {
    let world = World::new().await;
    let [kept, lone, image] = [(); 3].map(|()| LayerId::random());
    let [files, young] = [(); 2].map(|()| SnapshotId::random_of_build());
    let asked = ready_over(&world, "x", &kept).await;
    cache(&world, &[&lone], None, 7200).await;
    cache(&world, &[&kept], None, 7200).await;
    cache(&world, &[&kept], Some(&files), 7200).await;
    cache(&world, &[&image], Some(&young), 60).await;
    at_node(&world, &[&kept, &lone, &image], &[&files, &young]).await;
    upload(&world, &asked, "12345").await;
    let hour = json!({"olderThanSeconds": 3600, "dryRun": true});
    assert_eq!(gc(&world, hour).await, gone(0, 2, 1, 0, 1000));
    let hour = json!({"olderThanSeconds": 3600});
    assert_eq!(gc(&world, hour).await, gone(0, 2, 1, 0, 1000));
    let has = |layers: &[&LayerId], files: &[&SnapshotId]| {
        let layers: Vec<LayerId> = layers.iter().map(|one| (*one).clone()).collect();
        let files: Vec<SnapshotId> = files.iter().map(|one| (*one).clone()).collect();
        let node = &world.node;
        until("the node has what is needed", move || {
            let sealed: Vec<LayerId> = node.sealed().into_iter().collect();
            let kept: Vec<SnapshotId> = node.snapshot_ids().into_iter().collect();
            let mut layers = layers.clone();
            layers.sort();
            let same = sealed == layers && kept == files;
            async move { same }
        })
    };
    has(&[&kept, &image], &[&young]).await;
    assert_eq!(uploads(&world), 1);
    checked_gc(&world, gone(0, 1, 1, 1, 1005)).await;
    has(&[&kept], &[]).await;
    assert_eq!(uploads(&world), 0);
    checked_gc(&world, gone(0, 0, 0, 0, 0)).await;
    assert_eq!(create(&world, "x").await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_build_goes_once_neither_tag_nor_sandbox_leads_to_it() {
    let world = World::new().await;
    let [first, second, third] = [(); 3].map(|()| LayerId::random());
    let old = ready_over(&world, "x", &first).await;
    let tagged = ready_over(&world, "x:v1", &second).await;
    ready_over(&world, "x", &third).await;
    at_node(&world, &[&first, &second, &third], &[]).await;
    let by_id = format!("x:{}", old.build);
    let sandbox = create(&world, &by_id).await.json();
    let sandbox = sandbox["sandboxID"].as_str().unwrap();
    checked_gc(&world, gone(0, 0, 0, 0, 0)).await;
    let pause = format!("/sandboxes/{sandbox}/pause");
    assert_eq!(world.api("POST", &pause).send().await.status, 204);
    checked_gc(&world, gone(0, 0, 0, 0, 0)).await;
    let path = format!("/sandboxes/{sandbox}");
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
    // Nor does another team's order take it.
    let (_, key) = world.other_team(Standing::Good).await;
    let call = world.call("POST", "/builds/gc").header("x-api-key", &key);
    assert_eq!(call.send().await.json(), gone(0, 0, 0, 0, 0));
    checked_gc(&world, gone(1, 0, 1, 0, 0)).await;
    create(&world, &by_id).await.error(404);
    until("its layer is gone", || async {
        world.node.sealed().len() == 2
    })
    .await;
    for name in ["x", "x:v1", &format!("x:{}", tagged.build)] {
        assert_eq!(create(&world, name).await.status, 201, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_build_that_waits_or_runs_needs_stays() {
    let world = World::new().await;
    let [first, second] = [(); 2].map(|()| LayerId::random());
    let old = ready_over(&world, "x", &first).await;
    ready_over(&world, "x", &second).await;
    at_node(&world, &[&first, &second], &[]).await;
    let next = ask(&world, r#"{"name":"next"}"#).await;
    upload(&world, &next, "123").await;
    // It gets no turn here, and rests on the old build from its start.
    let path = format!("/v2/templates/{}/builds/{}", next.template, next.build);
    let recipe = json!({"fromTemplate": format!("x:{}", old.build), "steps": []});
    let started = world.api("POST", &path).json(&recipe.to_string());
    assert_eq!(started.send().await.status, 202);
    checked_gc(&world, gone(1, 0, 0, 0, 0)).await;
    assert_eq!(uploads(&world), 1);
    // The look for what nobody wants was begun; another one comes behind it.
    checked_gc(&world, gone(0, 0, 0, 0, 0)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.node.sealed().len(), 2);
    let cancel = format!("/admin/teams/{}/builds/cancel", world.team);
    assert_eq!(world.admin("POST", &cancel).send().await.status, 200);
    until("its ground goes with it", || async {
        world.node.sealed().into_iter().eq([second.clone()])
    })
    .await;
    checked_gc(&world, gone(0, 0, 0, 1, 3)).await;
}

/// Its client may have gone while it sent its files.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_nobody_begins_holds_what_was_sent_lately() {
    let world = World::new().await;
    let minutes = |count: u64| steady::now().checked_sub(Duration::from_secs(count * 60));
    for (digit, age) in [("1", 1), ("2", 15)] {
        let upload = Upload {
            sha256: digit.repeat(64),
            bytes: 7,
            artifact: None,
        };
        let key = CacheKey::parse(&upload.sha256).unwrap();
        let (store, at) = (&world.store, minutes(age).unwrap());
        store
            .upload_put(&world.team, &key, &upload, at)
            .await
            .unwrap();
    }
    let long_ago = Timestamp::now()
        .checked_sub(Duration::from_secs(1800))
        .unwrap();
    let team = world.store.team_by_id(&world.team).await.unwrap().unwrap();
    let asked = a_request(&team, "long-ago", &["default"], long_ago);
    world.store.build_request(&asked).await.unwrap();
    checked_gc(&world, gone(0, 0, 0, 1, 7)).await;
    assert_eq!(world.store.upload_bytes(&world.team).await.unwrap(), 7);
}

/// What the rows left when the process died is nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_rows_are_gone_already() {
    let mut world = World::new().await;
    let lone = LayerId::random();
    let files = SnapshotId::random_of_build();
    cache(&world, &[&lone], Some(&files), 60).await;
    at_node(&world, &[&lone], &[&files]).await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    upload(&world, &asked, "1").await;
    let trim = casemate_store::CacheTrim {
        team: world.team.clone(),
        before: Timestamp::now(),
        uploads_before: Timestamp::MAX,
        spared_files: Vec::new(),
        spared_layers: Vec::new(),
        mode: casemate_store::TrimMode::CarryOut,
    };
    world.store.cache_trim(&trim).await.unwrap();
    world.restart().await;
    until("nothing is left", || async {
        world.node.sealed().is_empty()
            && world.node.snapshot_ids().is_empty()
            && uploads(&world) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_janitor_forgets_builds_by_their_age() {
    let mut world = World::new().await;
    let [first, second] = [(); 2].map(|()| LayerId::random());
    let old = ready_over(&world, "x", &first).await;
    ready_over(&world, "x", &second).await;
    at_node(&world, &[&first, &second], &[]).await;
    let id = BuildId::parse(&old.build).unwrap();
    for kept in [None, Some(Duration::from_secs(3600))] {
        world
            .restart_with(|config| config.builds.unused = kept)
            .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(world.store.build_by_id(&id).await.unwrap().is_some());
    }
    let soon = Some(Duration::ZERO);
    world
        .restart_with(|config| config.builds.unused = soon)
        .await;
    until("it is gone", || async {
        world.store.build_by_id(&id).await.unwrap().is_none()
    })
    .await;
    let detail = format!("/templates/{}", old.template);
    let builds = world.api("GET", &detail).send().await.json();
    assert_eq!(builds["builds"].as_array().unwrap().len(), 1);
    assert_eq!(create(&world, "x").await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_not_understood_changes_nothing() {
    let world = World::new().await;
    cache(&world, &[&LayerId::random()], None, 60).await;
    for body in [
        "[]",
        r#"{"olderThanSeconds":-1}"#,
        r#"{"olderThanSeconds":"1"}"#,
        r#"{"olderThanSeconds":4294967296}"#,
        r#"{"olderThanSeconds":null}"#,
        r#"{"dryRun":1}"#,
    ] {
        let call = world.api("POST", "/builds/gc").json(body);
        call.send().await.error(400);
    }
    world.call("POST", "/builds/gc").send().await.error(401);
    // Older than anything can be; without a body all that is not in use.
    let far = json!({"olderThanSeconds": u32::MAX});
    assert_eq!(gc(&world, far).await, gone(0, 0, 0, 0, 0));
    let call = world
        .call("POST", "/builds/gc")
        .header("x-api-key", API_KEY);
    assert_eq!(call.send().await.json(), gone(0, 1, 1, 0, 0));
}
