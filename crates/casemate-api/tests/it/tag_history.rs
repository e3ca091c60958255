//! What tags led to and when; and the platform's own templates.

use std::collections::BTreeSet;

use casemate_store::Standing;
use serde_json::{Value, json};

use crate::builds::{Asked, ask, finish, ready, start};
use crate::world::{World, until};

async fn get(world: &World, path: &str) -> Value {
    let answer = world.api("GET", path).send().await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json()
}

async fn give(world: &World, target: &str, tags: &[&str]) {
    let body = json!({"target": target, "tags": tags}).to_string();
    let call = world.api("POST", "/templates/tags").json(&body);
    assert_eq!(call.send().await.status, 201);
}

/// `v1` moved from the first build to the second and back; `next` waits.
async fn moved(world: &World) -> [Asked; 2] {
    let first = ready(world, r#"{"name":"x","tags":["default","v1"]}"#).await;
    let second = ready(world, r#"{"name":"x:v1"}"#).await;
    give(world, &format!("x:{}", first.build), &["v1"]).await;
    let waiting = ask(world, r#"{"name":"x","tags":["next","v1"]}"#).await;
    start(world, &waiting).await;
    [first, second]
}

fn tags(page: &Value) -> Vec<&str> {
    let groups = page["tags"].as_array().unwrap().iter();
    groups.map(|group| group["tag"].as_str().unwrap()).collect()
}

fn builds(assignments: &Value) -> Vec<&str> {
    let all = assignments.as_array().unwrap().iter();
    all.map(|one| one["buildId"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_have_the_ready_builds_of_each_tag_the_latest_first() {
    let world = World::new().await;
    let [first, second] = moved(&world).await;
    let path = "/templates/x/tags/groups";
    let page = get(&world, path).await;
    assert!(page["nextCursor"].is_null() && page.as_object().unwrap().len() == 2);
    assert_eq!(tags(&page), ["v1", "default"]);
    let group = &page["tags"][0];
    assert_eq!(group["hasMore"], false);
    let (a, b) = (&*first.build, &*second.build);
    assert_eq!(builds(&group["assignments"]), [a, b, a]);
    let one = &group["assignments"][0];
    let fields: BTreeSet<_> = one
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "assignmentId",
        "assignedAt",
        "buildCreatedAt",
        "buildFinishedAt",
        "buildId",
    ];
    assert_eq!(fields, expected.into());
    for field in ["assignedAt", "buildCreatedAt", "buildFinishedAt"] {
        assert!(one[field].as_str().unwrap().ends_with('Z'), "{one}");
    }
    let all = group["assignments"].as_array().unwrap().iter();
    let ids: BTreeSet<_> = all
        .map(|one| one["assignmentId"].as_str().unwrap())
        .collect();
    assert!(
        ids.len() == 3 && ids.iter().all(|id| id.len() == 36),
        "{ids:?}"
    );
    assert_eq!(get(&world, path).await, page, "ids stay");
    let few = get(
        &world,
        &format!("{path}?assignmentLimit=2&search=V").replace('V', "v"),
    )
    .await;
    assert_eq!(tags(&few), ["v1"]);
    assert_eq!(few["tags"][0]["hasMore"], true);
    assert_eq!(builds(&few["tags"][0]["assignments"]), [a, b]);
    let none = get(&world, &format!("{path}?search=nothing")).await;
    assert_eq!(none, json!({"tags": [], "nextCursor": null}));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_groups_have_every_tag_once_in_each_order() {
    let world = World::new().await;
    ready(&world, r#"{"name":"x","tags":["c","a"]}"#).await;
    for tag in ["b", "e", "d"] {
        give(&world, "x:c", &[tag]).await;
    }
    for (sort, expected) in [
        ("latest_desc", ["d", "e", "b", "a", "c"]),
        ("latest_asc", ["a", "c", "b", "e", "d"]),
        ("name_asc", ["a", "b", "c", "d", "e"]),
        ("name_desc", ["e", "d", "c", "b", "a"]),
    ] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/templates/x/tags/groups?tagsLimit=2&sort={sort}{cursor}");
            let page = get(&world, &path).await;
            seen.extend(tags(&page).iter().map(|tag| (*tag).to_owned()));
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&tagsCursor={}", next.replace('=', "%3D")),
                None => break,
            }
        }
        assert_eq!(seen, expected, "{sort}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn assignments_of_a_tag_are_paged() {
    let world = World::new().await;
    let [first, second] = moved(&world).await;
    let path = format!("/templates/{}/tags/V1/assignments", first.template);
    let whole = get(&world, &path).await;
    assert!(whole["nextCursor"].is_null());
    let (a, b) = (&*first.build, &*second.build);
    assert_eq!(builds(&whole["data"]), [a, b, a]);
    let page = get(&world, &format!("{path}?limit=2")).await;
    assert_eq!(
        page["data"].as_array().unwrap()[..],
        whole["data"].as_array().unwrap()[..2]
    );
    let next = page["nextCursor"].as_str().unwrap().replace('=', "%3D");
    let rest = get(&world, &format!("{path}?limit=2&cursor={next}")).await;
    assert_eq!(rest["data"][0], whole["data"][2]);
    assert!(rest["nextCursor"].is_null());
    for tag in ["next", "unknown"] {
        let none = get(&world, &format!("/templates/x/tags/{tag}/assignments")).await;
        assert_eq!(none, json!({"data": [], "nextCursor": null}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_in_words() {
    let world = World::new().await;
    moved(&world).await;
    let groups = get(&world, "/templates/x/tags/groups?tagsLimit=1").await;
    let cursor = groups["nextCursor"].as_str().unwrap().replace('=', "%3D");
    let long = "a".repeat(65);
    for (path, status, expected) in [
        ("x/tags/groups?sort=size".to_owned(), 400, "parameter"),
        ("x/tags/groups?search=A".into(), 400, "parameter"),
        (format!("x/tags/groups?search={long}"), 400, "parameter"),
        ("x/tags/groups?tagsLimit=0".into(), 400, "parameter"),
        ("x/tags/groups?assignmentLimit=101".into(), 400, "parameter"),
        ("x/tags/groups?tagsCursor=x".into(), 400, "Invalid cursor"),
        (
            format!("x/tags/groups?sort=name_asc&tagsCursor={cursor}"),
            400,
            "Invalid cursor",
        ),
        (
            format!("x/tags/v1/assignments?cursor={cursor}"),
            400,
            "Invalid cursor",
        ),
        ("x/tags/v1/assignments?limit=101".into(), 400, "parameter"),
        ("x/tags/a%20b/assignments".into(), 400, "Invalid tag"),
        ("none/tags/groups".into(), 404, "template 'none' not found"),
        (
            "none/tags/v1/assignments".into(),
            404,
            "template 'none' not found",
        ),
        ("base/tags/groups".into(), 403, "You don't have access"),
    ] {
        let path = format!("/templates/{path}");
        let validated = world.api("GET", &path).send().await.error(status);
        assert!(validated.contains(expected), "{path}: {validated}");
    }
    let (_, key) = world.other_team(Standing::Good).await;
    for path in [
        "/templates/x/tags/groups",
        "/templates/x/tags/v1/assignments",
    ] {
        let call = world.call("GET", path).header("x-api-key", &key);
        call.send().await.error(404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platforms_own_templates_are_listed_without_their_use() {
    let world = World::new().await;
    let own = ask(&world, r#"{"name":"mine"}"#).await;
    start(&world, &own).await;
    finish(&world, &own).await;
    world.create("").await;
    until("the base is there", || async {
        get(&world, "/default-templates").await[0]["envdVersion"].is_string()
    })
    .await;
    let rows = get(&world, "/default-templates").await;
    assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
    let row = &rows[0];
    assert_eq!(row["templateID"], world.node.template().as_str());
    assert_eq!(
        (&row["names"], &row["public"]),
        (&json!(["base"]), &json!(true))
    );
    assert_eq!(
        (&row["buildStatus"], &row["spawnCount"]),
        (&json!("ready"), &json!(0))
    );
    assert!(row["lastSpawnedAt"].is_null() && row["createdBy"].is_null());
}
