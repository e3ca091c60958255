//! Templates: listed, published, tagged, used, deleted.

use casemate_store::Standing;
use serde_json::{Value, json};

use crate::builds::{ask, asked, finish, ready, start, status, try_ask};
use crate::world::{ACCESS_TOKEN, Answer, World, until};

async fn create(world: &World, key: &str, template: &str) -> Answer {
    let body = format!(r#"{{"templateID":"{template}"}}"#);
    let call = world.call("POST", "/v2/sandboxes").header("x-api-key", key);
    call.json(&body).send().await
}

async fn tags(world: &World, template: &str) -> Vec<(String, String)> {
    let path = format!("/templates/{template}/tags");
    let rows = world.api("GET", &path).send().await.json();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| (text(row, "tag"), text(row, "buildID")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_what_the_default_tag_leads_to() {
    let world = World::new().await;
    let asked = ask(&world, r#"{"name":"x","cpuCount":4,"memoryMB":2048}"#).await;
    let one = async || {
        let rows = world.api("GET", "/templates").send().await.json();
        assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
        rows[0].clone()
    };
    let row = one().await;
    assert_eq!(row["buildStatus"], "waiting");
    assert_eq!(row["buildID"], "00000000-0000-0000-0000-000000000000");
    assert_eq!(
        (&row["cpuCount"], &row["envdVersion"]),
        (&0.into(), &"".into())
    );
    assert!(row["createdBy"].is_null() && row["lastSpawnedAt"].is_null());
    assert!(row["createdAt"].as_str().unwrap().ends_with('Z'));
    start(&world, &asked).await;
    finish(&world, &asked).await;
    let row = one().await;
    assert_eq!(
        (&row["buildStatus"], &row["buildID"]),
        (&"ready".into(), &asked.build.as_str().into())
    );
    assert_eq!(
        (&row["cpuCount"], &row["memoryMB"], &row["diskSizeMB"]),
        (&4.into(), &2048.into(), &4321.into())
    );
    assert_ne!(row["envdVersion"], "");
    // A rebuild shows its status, and leaves what can be used as it is.
    let again = ask(&world, r#"{"name":"x"}"#).await;
    start(&world, &again).await;
    let row = one().await;
    assert_eq!(
        (&row["buildStatus"], &row["buildID"]),
        (&"building".into(), &asked.build.as_str().into())
    );
    assert_eq!(
        (&row["buildCount"], &row["spawnCount"]),
        (&2.into(), &0.into())
    );
    assert_eq!(create(&world, crate::world::API_KEY, "x").await.status, 201);
    let made = world.create("").await;
    assert!(made.as_str().starts_with('i'));
    until("the use is counted", || async {
        one().await["spawnCount"] == 1
    })
    .await;
    assert!(one().await["lastSpawnedAt"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_are_written_at_the_end() {
    let mut world = World::new().await;
    ready(&world, r#"{"name":"x"}"#).await;
    for _ in 0..3 {
        assert_eq!(create(&world, crate::world::API_KEY, "x").await.status, 201);
    }
    world.restart().await;
    let rows = world.api("GET", "/templates").send().await.json();
    assert_eq!(rows[0]["spawnCount"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_each_template_once() {
    let world = World::with(|config| config.limits.builds_max = 100).await;
    for number in 0..7 {
        ask(&world, &format!(r#"{{"name":"t{number}"}}"#)).await;
    }
    let id = world.create("").await;
    let snapshot = world
        .api("POST", &format!("/sandboxes/{id}/snapshots"))
        .json("{}");
    assert_eq!(snapshot.send().await.status, 201);
    let names = |rows: &Value| -> Vec<String> {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row["aliases"][0].as_str().unwrap().to_owned())
            .collect()
    };
    let (mut seen, mut query) = (Vec::new(), String::new());
    loop {
        let path = format!("/v2/templates?limit=3{query}");
        let page = world.api("GET", &path).send().await;
        seen.extend(names(&page.json()));
        match page.header("x-next-token") {
            Some(token) => query = format!("&nextToken={token}"),
            None => break,
        }
    }
    assert_eq!(seen, ["t6", "t5", "t4", "t3", "t2", "t1", "t0"]);
    let all = world.api("GET", "/templates").send().await.json();
    assert_eq!(names(&all), ["t0", "t1", "t2", "t3", "t4", "t5", "t6"]);
    for wrong in ["nextToken=x", "limit=0", "limit=-1", "limit=101"] {
        let path = format!("/v2/templates?{wrong}");
        world.api("GET", &path).send().await.error(400);
    }
    let asked = ask(&world, r#"{"name":"t0"}"#).await;
    let path = format!("/templates/{}", asked.template);
    let page = world.api("GET", &format!("{path}?limit=1")).send().await;
    assert_eq!(page.json()["builds"][0]["buildID"], asked.build.as_str());
    assert_eq!(page.json()["names"], json!(["first/t0"]));
    let token = page.header("x-next-token").unwrap().to_owned();
    let next = world
        .api("GET", &format!("{path}?nextToken={token}"))
        .send()
        .await;
    assert_eq!(next.json()["builds"][0]["status"], "error");
    assert!(next.header("x-next-token").is_none());
    let mixed = format!("/v2/templates?nextToken={token}");
    assert_eq!(
        world.api("GET", &mixed).send().await.error(400),
        "Invalid next token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_team_of_a_list_is_the_callers() {
    let world = World::new().await;
    ask(&world, r#"{"name":"x"}"#).await;
    let (other, key) = world.other_team(Standing::Good).await;
    let token = format!("Bearer {ACCESS_TOKEN}");
    for path in ["/templates", "/v2/templates"] {
        let own = format!("{path}?teamID={}", world.team);
        let foreign = format!("{path}?teamID={other}");
        let theirs = world.call("GET", path).header("x-api-key", &key);
        assert_eq!(theirs.send().await.text, "[]");
        assert_eq!(
            world.api("GET", &own).send().await.json()[0]["aliases"][0],
            "x"
        );
        assert_eq!(
            world.api("GET", &foreign).send().await.error(400),
            "Team ID param mismatch with the API key"
        );
        for path in [path, own.as_str()] {
            let user = world.call("GET", path).header("authorization", &token);
            assert_eq!(user.send().await.json()[0]["aliases"][0], "x");
        }
        let user = world.call("GET", &foreign).header("authorization", &token);
        assert_eq!(
            user.send().await.error(403),
            "You are not allowed to access this team"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn others_use_what_is_public_and_change_nothing() {
    let world = World::new().await;
    let mine = ready(&world, r#"{"name":"x"}"#).await;
    let (_, key) = world.other_team(Standing::Good).await;
    let (id, full) = (mine.template.clone(), "first/x");
    for reference in [full, &id] {
        let message = create(&world, &key, reference).await.error(404);
        assert_eq!(message, format!("template '{reference}' not found"));
    }
    let patch = async |path: &str, body: &str| world.api("PATCH", path).json(body).send().await;
    let changed = patch("/v2/templates/first%2Fx", r#"{"public":true}"#).await;
    assert_eq!(changed.json(), json!({"names": ["first/x"]}));
    assert_eq!(create(&world, &key, full).await.status, 201);
    for (method, path, body) in [
        (
            "PATCH",
            format!("/v2/templates/{id}"),
            r#"{"public":false}"#,
        ),
        ("PATCH", format!("/templates/{id}"), r#"{"public":false}"#),
        ("DELETE", format!("/templates/{id}"), ""),
        ("GET", format!("/templates/{id}"), ""),
        ("GET", format!("/templates/{id}/tags"), ""),
        (
            "GET",
            format!("/templates/{id}/tags/exists?tag=default"),
            "",
        ),
        (
            "DELETE",
            "/templates/tags".into(),
            &format!(r#"{{"name":"{id}","tags":["a"]}}"#),
        ),
        (
            "POST",
            "/templates/tags".into(),
            &format!(r#"{{"target":"{id}","tags":["a"]}}"#),
        ),
    ] {
        let call = world.call(method, &path).header("x-api-key", &key);
        let message = call.json(body).send().await.error(403);
        assert!(
            message.contains("You don't have access to"),
            "{method} {path}: {message}"
        );
    }
    for (method, path) in [("PATCH", "/v2/templates/x"), ("DELETE", "/templates/x")] {
        let call = world.call(method, path).header("x-api-key", &key);
        assert_eq!(
            call.json("{}").send().await.error(404),
            "template 'x' not found"
        );
    }
    // Nothing is asked for, so nothing changes; the older answer is null.
    assert_eq!(patch(&format!("/templates/{id}"), "").await.text, "null");
    assert_eq!(create(&world, &key, full).await.status, 201);
    let chunks = [r#"{"public""#, ":false}"].map(Ok::<_, std::io::Error>);
    let body = axum::body::Body::from_stream(futures_util::stream::iter(chunks));
    let hidden = world.api("PATCH", &format!("/templates/{id}")).body(body);
    assert_eq!(hidden.send().await.text, "null");
    create(&world, &key, full).await.error(404);
    let message = patch("/v2/templates/base", r#"{"public":false}"#)
        .await
        .error(403);
    assert_eq!(message, "You don't have access to template 'base'");
    patch("/v2/templates/nothing", "{}").await.error(404);
    let message = patch("/v2/templates/a%20b", "{}").await;
    assert_eq!(message.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_team_has_names_of_its_own() {
    let world = World::new().await;
    let mine = ready(&world, r#"{"name":"base"}"#).await;
    let (_, key) = world.other_team(Standing::Good).await;
    let call = world
        .call("POST", "/v3/templates")
        .header("x-api-key", &key);
    let theirs = asked(call.json(r#"{"name":"base"}"#).send().await);
    assert_ne!(mine.template, theirs.template);
    let made = world.try_create("").await.json();
    assert_eq!(made["templateID"], mine.template.as_str());
    // Theirs hides the platform's already, and nothing of it is ready.
    let message = create(&world, &key, "base").await.error(404);
    assert_eq!(
        message,
        "tag 'default' does not exist for template 'other/base'"
    );
    let alias = world
        .api("GET", "/templates/aliases/base")
        .send()
        .await
        .json();
    assert_eq!(alias["templateID"], mine.template.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_lead_to_builds_that_are_ready() {
    let world = World::new().await;
    let first = ready(&world, r#"{"name":"x","tags":["v1","b"]}"#).await;
    let second = ready(&world, r#"{"name":"x:v2"}"#).await;
    let post = async |body: Value| {
        let call = world.api("POST", "/templates/tags");
        call.json(&body.to_string()).send().await
    };
    let moved = post(json!({"target": "first/x:v2", "tags": ["V1", "a", "v1"]})).await;
    assert_eq!(moved.status, 201);
    assert_eq!(
        moved.json(),
        json!({"tags": ["v1", "a"], "buildID": second.build})
    );
    let by_build = json!({"target": format!("x:{}", first.build), "tags": ["old"]});
    assert_eq!(post(by_build).await.json()["buildID"], first.build.as_str());
    let waits = ask(&world, r#"{"name":"x:next"}"#).await;
    let expected = [
        ("a", &second),
        ("b", &first),
        ("next", &waits),
        ("old", &first),
        ("v1", &second),
        ("v2", &second),
    ];
    let expected = expected.map(|(tag, of)| (tag.to_owned(), of.build.clone()));
    assert_eq!(tags(&world, "x").await, expected);
    assert_eq!(tags(&world, &first.template).await, expected);
    assert_eq!(tags(&world, "first%2Fx%3Av2").await, expected);
    let count = world.api("GET", "/templates/x/tags/count").send().await;
    assert_eq!(count.json(), json!({"total": 6}));
    for (tag, exists) in [("V1", true), ("next", false), ("none", false)] {
        let path = format!("/templates/x/tags/exists?tag={tag}");
        let answer = world.api("GET", &path).send().await.json();
        let expected = json!({"exists": exists, "normalizedTag": tag.to_lowercase()});
        assert_eq!(answer, expected);
    }
    for (body, status, expected) in [
        (json!({"target": "x"}), 400, "At least one tag is required"),
        (
            json!({"target": "x", "tags": []}),
            400,
            "At least one tag is required",
        ),
        (
            json!({"target": "x", "tags": ["a b"]}),
            400,
            "Invalid tag: ",
        ),
        (
            json!({"target": "x", "tags": [first.build]}),
            400,
            "Invalid tag: tag cannot be a UUID",
        ),
        (
            json!({"target": "a b", "tags": ["a"]}),
            400,
            "Invalid target template format: ",
        ),
        (
            json!({"target": "other/x", "tags": ["a"]}),
            400,
            "namespace 'other' must match your team 'first'",
        ),
        (
            json!({"target": "y", "tags": ["a"]}),
            404,
            "template 'y' not found",
        ),
        (
            json!({"target": "x:next", "tags": ["a"]}),
            404,
            "Template 'x' with tag 'next' not found",
        ),
        (
            json!({"target": "x", "tags": ["a"]}),
            404,
            "Template 'x' with tag 'default' not found",
        ),
        (
            json!({"target": "base", "tags": ["a"]}),
            403,
            "You don't have access to sandbox template 'base'",
        ),
    ] {
        let message = post(body.clone()).await.error(status);
        assert!(message.starts_with(expected), "{body}: {message}");
    }
    let delete = async |body: Value| {
        let call = world.api("DELETE", "/templates/tags");
        call.json(&body.to_string()).send().await
    };
    for (body, status, expected) in [
        (json!({"name": "x"}), 400, "At least one tag is required"),
        (
            json!({"name": "x", "tags": ["a", "default"]}),
            400,
            "Cannot delete the 'default' tag",
        ),
        (
            json!({"name": "x:a", "tags": ["a"]}),
            400,
            "Template name should not contain a tag, use the 'tags' field instead",
        ),
        (
            json!({"name": "a b", "tags": ["a"]}),
            400,
            "Invalid template name format: ",
        ),
        (
            json!({"name": "other/x", "tags": ["a"]}),
            400,
            "namespace 'other' must",
        ),
        (
            json!({"name": "y", "tags": ["a"]}),
            404,
            "template 'y' not found",
        ),
    ] {
        let message = delete(body.clone()).await.error(status);
        assert!(message.starts_with(expected), "{body}: {message}");
    }
    assert_eq!(
        create(&world, crate::world::API_KEY, "x:v1").await.status,
        201
    );
    let gone = delete(json!({"name": "x", "tags": ["v1", "unknown"]})).await;
    assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
    assert_eq!(tags(&world, "x").await.len(), 5);
    create(&world, crate::world::API_KEY, "x:v1")
        .await
        .error(404);
    let by_build = format!("x:{}", first.build);
    assert_eq!(
        create(&world, crate::world::API_KEY, &by_build)
            .await
            .status,
        201
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_template_takes_its_builds_along() {
    let world = World::new().await;
    let mine = ready(&world, r#"{"name":"x"}"#).await;
    let rebuild = ask(&world, r#"{"name":"x:v2"}"#).await;
    start(&world, &rebuild).await;
    let made = create(&world, crate::world::API_KEY, "x").await;
    let sandbox = made.json()["sandboxID"].as_str().unwrap().to_owned();
    let delete = async |name: &str| {
        let path = format!("/templates/{name}");
        world.api("DELETE", &path).send().await
    };
    let message = delete("first%2Fx").await.error(400);
    let expected = format!(
        "cannot delete template '{}' because there are running sandboxes using it",
        mine.template
    );
    assert_eq!(message, expected);
    // It stays, and so does what is built of it.
    assert_eq!(status(&world, &rebuild, "").await["status"], "building");
    let killed = world
        .api("DELETE", &format!("/sandboxes/{sandbox}"))
        .send()
        .await;
    assert_eq!(killed.status, 204);
    assert_eq!(delete("first%2Fx").await.status, 204);
    create(&world, crate::world::API_KEY, "x").await.error(404);
    let path = format!(
        "/templates/{}/builds/{}/status",
        mine.template, rebuild.build
    );
    world.api("GET", &path).send().await.error(400);
    assert_eq!(world.api("GET", "/templates").send().await.text, "[]");
    assert_eq!(delete("x").await.error(404), "template 'x' not found");
    let anew = ask(&world, r#"{"name":"x"}"#).await;
    assert_ne!(anew.template, mine.template);
    let spent = format!(r#"{{"name":"{}"}}"#, mine.template);
    let message = try_ask(&world, &spent).await.error(409);
    assert_eq!(
        message,
        format!("Alias '{}' is already used", mine.template)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_read_like_a_template_and_not_published() {
    let world = World::new().await;
    let id = world.create("").await;
    let path = format!("/sandboxes/{id}/snapshots");
    let made = world
        .api("POST", &path)
        .json(r#"{"name":"snap"}"#)
        .send()
        .await;
    assert_eq!(made.status, 201);
    let shown = world.api("GET", "/templates/snap").send().await.json();
    assert_eq!(
        (&shown["names"], &shown["builds"][0]["status"]),
        (&json!(["first/snap"]), &"ready".into())
    );
    let refused = world
        .api("PATCH", "/v2/templates/snap")
        .json(r#"{"public":true}"#);
    assert_eq!(
        refused.send().await.error(404),
        "Template 'snap' not found or you don't have access to it"
    );
    let taken = try_ask(&world, r#"{"name":"snap"}"#).await.error(409);
    assert_eq!(taken, "Alias 'snap' is already used");
    let unknown = world.api("GET", "/templates/nothing").send().await;
    assert_eq!(unknown.error(404), "Template nothing not found");
}
