//! Builds: asked for, begun, read.

use casemate_control::testing::FakeNode;
use casemate_history::{BuildLogEntry, BuildLogs, LogLevel};
use casemate_store::{Build, BuildId, Builds, LimitOverrides, Standing, Teams, Templates};
use casemate_types::{Distribution, TemplateId, Timestamp};
use serde_json::Value;

use crate::world::{ACCESS_TOKEN, Answer, World};

pub struct Asked {
    pub template: String,
    pub build: String,
}

/// A build that waits, of the first team.
pub async fn ask(world: &World, body: &str) -> Asked {
    asked(try_ask(world, body).await)
}

pub async fn try_ask(world: &World, body: &str) -> Answer {
    world.api("POST", "/v3/templates").json(body).send().await
}

pub fn asked(answer: Answer) -> Asked {
    assert_eq!(answer.status, 202, "{}", answer.text);
    let body = answer.json();
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    Asked {
        template: text("templateID"),
        build: text("buildID"),
    }
}

pub async fn start(world: &World, asked: &Asked) -> Answer {
    let body = r#"{"fromImage":"debian:bookworm","steps":[{"type":"RUN","args":["true"],"force":false,"later":1}]}"#;
    start_from(world, asked, body).await
}

pub async fn start_from(world: &World, asked: &Asked, body: &str) -> Answer {
    let path = format!("/v2/templates/{}/builds/{}", asked.template, asked.build);
    world.api("POST", &path).json(body).send().await
}

/// It becomes ready, with the files of the node's base.
pub async fn finish(world: &World, asked: &Asked) {
    let id = BuildId::parse(&asked.build).unwrap();
    let base = world.store.template_resolve("", &"base".parse_ref()).await;
    let casemate_store::Resolution::Found { build: base, .. } = base.unwrap() else {
        panic!("the node brought no base");
    };
    let build = Build {
        id,
        template: TemplateId::parse(&asked.template).unwrap(),
        distribution: Distribution::Other,
        ..base
    };
    let now = Timestamp::now();
    assert!(world.store.build_finish(&build, 4321, now).await.unwrap());
}

/// A template of the first team that is ready.
pub async fn ready(world: &World, body: &str) -> Asked {
    let asked = ask(world, body).await;
    assert_eq!(start(world, &asked).await.status, 202);
    finish(world, &asked).await;
    asked
}

trait ParseRef {
    fn parse_ref(&self) -> casemate_types::template::TemplateRef;
}

impl ParseRef for &str {
    fn parse_ref(&self) -> casemate_types::template::TemplateRef {
        casemate_types::template::TemplateRef::parse(self).unwrap()
    }
}

pub async fn status(world: &World, asked: &Asked, query: &str) -> Value {
    let (template, build) = (&asked.template, &asked.build);
    let path = format!("/templates/{template}/builds/{build}/status{query}");
    let answer = world.api("GET", &path).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn messages(entries: &Value) -> Vec<&str> {
    let entries = entries.as_array().unwrap().iter();
    entries
        .map(|entry| entry["message"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_answers_with_names_and_tags() {
    let world = World::new().await;
    let answer = try_ask(&world, r#"{"name":"My-App"}"#).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let first = answer.json();
    assert_eq!(first["aliases"], serde_json::json!(["my-app"]));
    assert_eq!(first["names"], serde_json::json!(["first/my-app"]));
    assert_eq!(first["tags"], serde_json::json!(["default"]));
    assert_eq!(first["public"], false);
    assert_eq!(first["templateID"].as_str().unwrap().len(), 20);
    let body = r#"{"name":" first/my-app:V1 ","tags":["v1","a"],"teamID":"any"}"#;
    let second = try_ask(&world, body).await.json();
    assert_eq!(second["templateID"], first["templateID"]);
    assert_ne!(second["buildID"], first["buildID"]);
    assert_eq!(second["tags"], serde_json::json!(["v1", "a"]));
    let listed = world.api("GET", "/templates").send().await.json();
    assert_eq!(listed[0]["buildCount"], 2);
    // The older name of the field; JS sends its bodies in chunks.
    let chunks = [r#"{"alias":"#, r#""old"}"#].map(Ok::<_, std::io::Error>);
    let body = axum::body::Body::from_stream(futures_util::stream::iter(chunks));
    let old = world.api("POST", "/v3/templates").body(body).send().await;
    assert_eq!(old.json()["names"][0], "first/old");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_refused_in_words() {
    let world = World::new().await;
    let uuid = "0fe0c5b4-4a2e-4b0c-9d0e-6c5b8f2d7a11";
    let long = "a".repeat(129);
    let check = async |body: &str, status: u16, expected: &str| {
        let message = try_ask(&world, body).await.error(status);
        assert!(message.starts_with(expected), "{body}: {message}");
    };
    check("{}", 400, "Name is required").await;
    check("[", 400, "Error when parsing request").await;
    check(r#"{"name":5}"#, 400, "validation error").await;
    check(r#"{"name":""}"#, 400, "Invalid name: ").await;
    check(
        r#"{"name":"a b"}"#,
        400,
        "Invalid name: invalid template ID: a b",
    )
    .await;
    check(r#"{"name":"x:"}"#, 400, "Invalid name: invalid tag: ").await;
    check(r#"{"name":"a/b/c"}"#, 400, "Invalid name: ").await;
    check(&format!(r#"{{"name":"{long}"}}"#), 400, "Invalid name: ").await;
    let uuid_tag = format!(r#"{{"name":"x:{uuid}"}}"#);
    check(&uuid_tag, 400, "Invalid name: tag cannot be a UUID").await;
    let uuid_tag = format!(r#"{{"name":"x","tags":["{uuid}"]}}"#);
    check(&uuid_tag, 400, "Invalid tag: tag cannot be a UUID").await;
    check(r#"{"name":"x","tags":["a b"]}"#, 400, "Invalid tag: ").await;
    let foreign = "namespace 'other' must match your team 'first'";
    check(r#"{"name":"other/x"}"#, 400, foreign).await;
    for (more, expected) in [
        (r#""cpuCount":0"#, "CPU count must be at least 1"),
        (r#""cpuCount":3"#, "CPU count must be 1 or an even number"),
        (r#""cpuCount":34"#, "CPU count must be at most 32"),
        (r#""cpuCount":16"#, "CPU count can't be higher than 8"),
        (r#""memoryMB":64"#, "Memory must be at least 128 MiB"),
        (r#""memoryMB":1025"#, "Memory must be divisible by 2"),
        (r#""memoryMB":9000"#, "Memory can't be higher than 8192 MiB"),
        (r#""minFreeDiskMb":99999"#, "Free disk can't be higher than"),
    ] {
        check(&format!(r#"{{"name":"x",{more}}}"#), 400, expected).await;
    }
    assert_eq!(world.api("GET", "/templates").send().await.text, "[]");
    let made = ask(&world, r#"{"name":"x","cpuCount":4,"memoryMB":2048}"#).await;
    let hidden = format!(r#"{{"name":"{}"}}"#, made.template);
    check(
        &hidden,
        409,
        &format!("Alias '{}' is already used", made.template),
    )
    .await;
    let path = format!("/templates/{}", made.template);
    let builds = world.api("GET", &path).send().await.json()["builds"].clone();
    assert_eq!(
        (&builds[0]["cpuCount"], &builds[0]["memoryMB"]),
        (&4.into(), &2048.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_request_supersedes_what_waits_and_a_start_what_is_built() {
    let world = World::new().await;
    let first = ask(&world, r#"{"name":"x"}"#).await;
    let aside = ask(&world, r#"{"name":"x:v1"}"#).await;
    let second = ask(&world, r#"{"name":"x","tags":["default","v2"]}"#).await;
    let superseded = status(&world, &first, "").await;
    assert_eq!(superseded["status"], "error");
    let message = "The build was canceled because it was superseded by a newer one.";
    assert_eq!(
        superseded["reason"],
        serde_json::json!({ "message": message })
    );
    assert_eq!(status(&world, &aside, "").await["status"], "waiting");
    assert_eq!(
        start(&world, &first).await.error(400),
        "build is not in waiting state"
    );
    let started = start(&world, &second).await;
    assert_eq!((started.status.as_u16(), started.text.as_str()), (202, ""));
    assert_eq!(started.header("content-length"), Some("0"));
    let third = ask(&world, r#"{"name":"x:v2"}"#).await;
    assert_eq!(status(&world, &second, "").await["status"], "building");
    assert_eq!(start(&world, &third).await.status, 202);
    let cancelled = status(&world, &second, "").await;
    assert_eq!(cancelled["reason"]["message"], "build was cancelled");
    assert_eq!(status(&world, &third, "").await["status"], "building");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_has_so_many_builds_at_once() {
    let world = World::with(|config| config.limits.builds_max = 2).await;
    let first = ask(&world, r#"{"name":"a"}"#).await;
    ask(&world, r#"{"name":"b"}"#).await;
    let refused = try_ask(&world, r#"{"name":"c"}"#).await;
    assert_eq!(refused.header("should-retry"), Some("false"));
    let message = refused.error(429);
    assert!(
        message
            .starts_with("you have reached the maximum number of concurrent template builds (2)."),
        "{message}"
    );
    // It takes the place of the one that it supersedes.
    ask(&world, r#"{"name":"b"}"#).await;
    assert_eq!(start(&world, &first).await.status, 202);
    finish(&world, &first).await;
    ask(&world, r#"{"name":"c"}"#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_are_refused_as_specified() {
    let world = World::new().await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let (_, key) = world.other_team(Standing::Good).await;
    let path = format!("/v2/templates/{}/builds/{}", asked.template, asked.build);
    let image = r#"{"fromImage":"debian"}"#;
    let stranger = world
        .call("POST", &path)
        .header("x-api-key", &key)
        .json(image);
    assert_eq!(
        stranger.send().await.error(403),
        "User does not have access to the template"
    );
    let post = async |path: &str, body: &str| world.api("POST", path).json(body).send().await;
    let wrong = format!("/v2/templates/{}/builds/nonsense", asked.template);
    assert_eq!(
        post(&wrong, image).await.error(400),
        "Invalid build ID: nonsense"
    );
    let unknown = format!(
        "/v2/templates/{}/builds/{}",
        asked.template,
        BuildId::random()
    );
    let message = post(&unknown, image).await.error(404);
    assert!(
        message.starts_with("Error when getting template: "),
        "{message}"
    );
    let other = ask(&world, r#"{"name":"y"}"#).await;
    let mixed = format!("/v2/templates/{}/builds/{}", asked.template, other.build);
    post(&mixed, image).await.error(404);
    for body in [
        "",
        "[]",
        r#"{"steps":null}"#,
        r#"{"fromImageRegistry":{"type":"x"}}"#,
    ] {
        post(&path, body).await.error(400);
    }
    let agent = world
        .api("POST", &path)
        .header("user-agent", "e2b-js-sdk/x");
    let message = agent.json(image).send().await.error(400);
    assert!(
        message.starts_with("Error when parsing user agent: "),
        "{message}"
    );
    assert_eq!(status(&world, &asked, "").await["status"], "waiting");
    for wrong in [
        r#"{"fromArchive":"x"}"#,
        r#"{"fromArchive":{"ref":"x"}}"#,
        r#"{"fromArchive":null}"#,
    ] {
        post(&path, wrong).await.error(400);
    }
    let other = ask(&world, r#"{"name":"other"}"#).await;
    let there = format!("/v2/templates/{}/builds/{}", other.template, other.build);
    let both = r#"{"fromArchive":{"filesHash":"x"},"fromImage":"a"}"#;
    assert_eq!(
        post(&there, both).await.error(500),
        "Error when starting template build: cannot specify both fromImage and fromArchive"
    );
    let other = ask(&world, r#"{"name":"other"}"#).await;
    let there = format!("/v2/templates/{}/builds/{}", other.template, other.build);
    let unnamed = r#"{"fromArchive":{"filesHash":"x"}}"#;
    assert_eq!(post(&there, unnamed).await.status, 202);
    let shown = status(&world, &other, "").await;
    assert_eq!(
        shown["reason"]["message"],
        "invalid files hash of the archive"
    );
    let both = r#"{"fromImage":"a","fromTemplate":"b"}"#;
    assert_eq!(
        post(&path, both).await.error(500),
        "Error when starting template build: cannot specify both fromImage and fromTemplate"
    );
    assert_eq!(status(&world, &asked, "").await["status"], "error");
    post(&path, image).await.error(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_begun_without_a_node() {
    let node = FakeNode::new();
    node.disconnect();
    let world = World::without_node(|_| {}, node).await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let refused = start(&world, &asked).await.error(503);
    assert_eq!(refused, "Error when getting available build client");
    assert_eq!(status(&world, &asked, "").await["status"], "waiting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_read_line_by_line() {
    let world = World::new().await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let at = |millis: i64| Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap();
    let line = |millis, level, step: Option<&str>, message: &str| BuildLogEntry {
        at: at(millis),
        level,
        step: step.map(Into::into),
        message: message.into(),
    };
    let lines = [
        line(0, LogLevel::Info, Some("base"), "a"),
        line(1, LogLevel::Debug, None, "b"),
        line(1, LogLevel::Info, Some("1"), "c"),
        line(2, LogLevel::Error, Some("1"), "d"),
        line(3, LogLevel::Warn, Some("2"), "e"),
    ];
    let append = world
        .history
        .build_logs_append(&world.team, &asked.build, &lines);
    append.await.unwrap();
    let waiting = status(&world, &asked, "").await;
    assert_eq!(waiting["logEntries"], serde_json::json!([]));
    assert_eq!(waiting["logs"], serde_json::json!([]));
    assert!(waiting.get("reason").is_none());
    // Without a builder, which has lines of its own to say.
    let build = BuildId::parse(&asked.build).unwrap();
    let begun = world
        .store
        .build_begin(&build, "a-server", Timestamp::now());
    begun.await.unwrap();
    let all = status(&world, &asked, "").await;
    assert_eq!(
        (&all["templateID"], &all["buildID"]),
        (
            &asked.template.as_str().into(),
            &asked.build.as_str().into()
        )
    );
    assert_eq!(messages(&all["logEntries"]), ["a", "b", "c", "d", "e"]);
    assert_eq!(all["logEntries"][0]["level"], "info");
    assert_eq!(all["logEntries"][0]["step"], "base");
    assert!(all["logEntries"][1].get("step").is_none());
    for (query, expected) in [
        ("?logsOffset=2&limit=2", &["c", "d"][..]),
        ("?logsOffset=5", &[]),
        ("?logsOffset=99", &[]),
        ("?limit=0", &[]),
        ("?level=info&logsOffset=1", &["c", "d", "e"]),
        ("?level=error", &["d"]),
    ] {
        let page = status(&world, &asked, query).await;
        assert_eq!(messages(&page["logEntries"]), expected, "{query}");
    }
    let path = format!("/templates/{}/builds/{}", asked.template, asked.build);
    for query in ["logsOffset=-1", "limit=101", "level=loud", "limit=x"] {
        let path = format!("{path}/status?{query}");
        world.api("GET", &path).send().await.error(400);
    }
    let failure = casemate_types::BuildFailure {
        message: "no".into(),
        step: Some("1".into()),
    };
    let id = BuildId::parse(&asked.build).unwrap();
    let failed = world.store.build_fail(&id, &failure, at(9)).await;
    assert!(failed.unwrap());
    let failed = status(&world, &asked, "").await;
    assert_eq!(
        (&failed["status"], &failed["reason"]["step"]),
        (&"error".into(), &"1".into())
    );
    assert_eq!(messages(&failed["reason"]["logEntries"]), ["d"]);
    // Whichever page of the log comes with it.
    for query in ["?limit=1", "?logsOffset=50", "?level=error"] {
        let failed = status(&world, &asked, query).await;
        assert_eq!(messages(&failed["reason"]["logEntries"]), ["d"], "{query}");
    }
    let millis = at(1).as_millisecond();
    for (query, expected) in [
        (String::new(), &["a", "b", "c", "d", "e"][..]),
        (format!("?cursor={millis}&limit=3"), &["b", "c", "d"]),
        (
            format!("?cursor={millis}&direction=backward"),
            &["c", "b", "a"],
        ),
        ("?level=warn&source=persistent".into(), &["d", "e"]),
    ] {
        let answer = world
            .api("GET", &format!("{path}/logs{query}"))
            .send()
            .await;
        assert_eq!(messages(&answer.json()["logs"]), expected, "{query}");
    }
    for query in ["direction=up", "source=other", "cursor=-1", "limit=101"] {
        let answer = world
            .api("GET", &format!("{path}/logs?{query}"))
            .send()
            .await;
        answer.error(400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_read_by_its_team_alone() {
    let world = World::new().await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let (_, key) = world.other_team(Standing::Good).await;
    let Asked { template, build } = &asked;
    let token = format!("Bearer {ACCESS_TOKEN}");
    for what in ["status", "logs"] {
        let path = format!("/templates/{template}/builds/{build}/{what}");
        let stranger = world.call("GET", &path).header("x-api-key", &key);
        assert_eq!(
            stranger.send().await.error(403),
            format!("You don't have access to this sandbox template ({template})")
        );
        let member = world.call("GET", &path).header("authorization", &token);
        assert_eq!(member.send().await.status, 200);
        let by_name = format!("/templates/first%2Fx/builds/{build}/{what}");
        assert_eq!(world.api("GET", &by_name).send().await.status, 200);
        let unknown = BuildId::random();
        let path = format!("/templates/{template}/builds/{unknown}/{what}");
        let message = world.api("GET", &path).send().await.error(400);
        assert_eq!(message, format!("Build '{unknown}' not found"));
        let path = format!("/templates/other/builds/{build}/{what}");
        world.api("GET", &path).send().await.error(400);
        let path = format!("/templates/{template}/builds/x/{what}");
        let message = world.api("GET", &path).send().await.error(400);
        assert_eq!(message, "Invalid build id");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_cancel_all_builds_of_a_team() {
    let world = World::new().await;
    let waiting = ask(&world, r#"{"name":"a"}"#).await;
    let building = ask(&world, r#"{"name":"b"}"#).await;
    start(&world, &building).await;
    let done = ready(&world, r#"{"name":"c"}"#).await;
    let path = format!("/admin/teams/{}/builds/cancel", world.team);
    let answer = world.admin("POST", &path).send().await;
    assert_eq!(
        answer.json(),
        serde_json::json!({"cancelledCount": 2, "failedCount": 0})
    );
    for one in [&waiting, &building] {
        let shown = status(&world, one, "").await;
        assert_eq!(shown["reason"]["message"], "cancelled by admin");
    }
    assert_eq!(status(&world, &done, "").await["status"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_team_hold_for_its_templates() {
    let world = World::new().await;
    let mut team = world.store.team_by_id(&world.team).await.unwrap().unwrap();
    team.limits = LimitOverrides {
        vcpus_max: Some(4),
        ..LimitOverrides::default()
    };
    assert!(world.store.team_update(&team).await.unwrap());
    // Who calls is remembered for a moment: a user's team is read each time.
    let mut world = world;
    world.restart().await;
    let message = try_ask(&world, r#"{"name":"x","cpuCount":6}"#)
        .await
        .error(400);
    assert!(
        message.starts_with("CPU count can't be higher than 4 "),
        "{message}"
    );
}
