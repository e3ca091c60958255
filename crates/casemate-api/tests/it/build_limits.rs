//! Recipes that would make others keep more than they are worth.

use std::collections::BTreeMap;

use casemate_images::{Digest, NewImage, PackedLayer, Platform};
use casemate_types::Timestamp;
use casemate_types::build::FAILURE_BYTES_MAX;
use serde_json::{Value, json};

use crate::builds::{Asked, ask, start_from, status};
use crate::world::{World, until};

const HASH: &str = "49ccf0a0a1bce4bd8b8c004d206fb8b1692166706930faa40827886fa70b08f5";

async fn world() -> World {
    World::with(|config| config.builds.at_once = 1).await
}

/// To its end, with a client of before the implicit user: for variables alone no sandbox is made.
async fn built(world: &World, name: &str, recipe: Value) -> (Asked, Value) {
    let asked = ask(world, &json!({ "name": name }).to_string()).await;
    let path = format!("/v2/templates/{}/builds/{}", asked.template, asked.build);
    let call = world
        .api("POST", &path)
        .header("user-agent", "e2b-js-sdk/2.2.0");
    let started = call.json(&recipe.to_string()).send().await;
    assert_eq!(started.status, 202, "{}", started.text);
    until("the build is over", || async {
        status(world, &asked, "?limit=0").await["status"] == "error"
    })
    .await;
    let reason = status(world, &asked, "?limit=0").await["reason"].clone();
    (asked, reason)
}

async fn upload(world: &World, content: Vec<u8>) {
    let asked = ask(world, r#"{"name":"uploads"}"#).await;
    let path = format!("/templates/{}/files/{HASH}", asked.template);
    let link = world.api("GET", &path).send().await.json();
    let url = link["url"].as_str().unwrap();
    let path = &url[url.find("/uploads/").unwrap()..];
    let put = world.call("PUT", path).body(content.into()).send().await;
    assert_eq!(put.status, 200, "{}", put.text);
}

/// How many lines of the log begin so.
async fn lines(world: &World, asked: &Asked, begin: &str) -> usize {
    let (mut offset, mut found) = (0, 0);
    loop {
        let page = status(world, asked, &format!("?logsOffset={offset}")).await;
        let page = page["logEntries"].as_array().unwrap().clone();
        let messages = page.iter().map(|line| line["message"].as_str().unwrap());
        found += messages.filter(|text| text.starts_with(begin)).count();
        offset += page.len();
        if page.is_empty() {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_recipe_says_makes_no_failure_long() {
    let world = world().await;
    let long = "x".repeat(1 << 20);
    for (name, recipe, end) in [
        (
            "kind",
            json!({"fromTemplate": "base", "steps": [{"type": long}]}),
            "X is not implemented",
        ),
        (
            "template",
            json!({ "fromTemplate": format!("{long}!") }),
            "and '_')",
        ),
        ("image", json!({ "fromImage": format!("{long}!") }), ""),
    ] {
        let (asked, reason) = built(&world, name, recipe).await;
        let message = reason["message"].as_str().unwrap();
        assert!(message.len() <= FAILURE_BYTES_MAX, "{name}");
        let shown = &message[message.len() - 40..];
        assert!(message.ends_with(end), "{name}: {shown}");
        let path = format!("/templates/{}", asked.template);
        assert!(world.api("GET", &path).send().await.text.len() < 2000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_no_request_could_carry_are_the_recipes_fault() {
    let world = world().await;
    upload(&world, b"no matter what".to_vec()).await;
    let long = "x".repeat(100_000);
    for (name, kind, args) in [
        ("source", "COPY", json!([long, "/x"])),
        ("target", "COPY", json!(["a", format!("/{long}")])),
        ("owner", "COPY", json!(["a", "/x", long])),
        ("mode", "ADD", json!(["a", "/x", "", long])),
        ("user", "RUN", json!(["true", long])),
    ] {
        let step = json!({"type": kind, "args": args, "filesHash": HASH});
        let recipe = json!({"fromTemplate": "base", "steps": [step]});
        let (_, reason) = built(&world, name, recipe).await;
        assert_eq!(reason["step"], "1", "{name}: {reason}");
        let message = reason["message"].as_str().unwrap();
        assert!(message.contains("bytes, and can have"), "{name}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_leaves_no_gigabytes_of_variables() {
    let world = world().await;
    let value = "x".repeat(120_000);
    let mut steps = vec![json!({"type": "ENV", "args": ["A", value, "B", value]})];
    steps.extend((0..99).map(|n| json!({"type": "ENV", "args": [format!("C{n}"), "x"]})));
    let recipe = json!({"fromTemplate": "base", "steps": steps});
    // Each state has all of 240 kB, and 16 MiB are kept of a build.
    let (first, _) = built(&world, "x", recipe.clone()).await;
    assert_eq!(lines(&world, &first, "[builder ").await, 100 + 1);
    let told = "[builder 70/100] The variables of all steps together";
    assert_eq!(lines(&world, &first, told).await, 1);
    let (second, _) = built(&world, "x", recipe).await;
    assert_eq!(lines(&world, &second, "CACHED [builder ").await, 69);
    assert_eq!(lines(&world, &second, "[builder ").await, 31);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipe_that_waits_in_memory_has_a_bound() {
    let world = World::new().await;
    let asked = ask(&world, r#"{"name":"x"}"#).await;
    let start = async |bytes: usize| {
        let step = json!({"type": "RUN", "args": ["x".repeat(bytes)]});
        let recipe = json!({"fromTemplate": "base", "steps": [step]});
        start_from(&world, &asked, &recipe.to_string()).await
    };
    let message = start(4 << 20).await.error(413);
    assert!(message.contains("4194304 bytes"), "{message}");
    assert_eq!(start((4 << 20) - 200).await.status, 202);
}

/// Everybody may make one: a registry or an archive is anybody's.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_more_variables_than_processes_can_have_is_refused() {
    let world = world().await;
    let value = "x".repeat(100_000);
    // Nobody comes as far as to read it.
    let layer = b"no layer";
    let image = NewImage {
        title: "x".into(),
        name: "x".into(),
        created: Timestamp::UNIX_EPOCH,
        created_by: String::new(),
        platform: Platform::host(),
        env: ["A", "B", "C"].map(|name| format!("{name}={value}")).into(),
        user: String::new(),
        workdir: String::new(),
        command: Vec::new(),
        labels: BTreeMap::new(),
        layer: PackedLayer {
            digest: Digest::of(layer),
            bytes: layer.len() as u64,
            diff_id: Digest::of(layer),
        },
    };
    let (before, behind) = image.around_layer();
    upload(&world, [&before, &layer[..], &behind].concat()).await;
    let recipe = json!({"fromArchive": {"filesHash": HASH}});
    let (_, reason) = built(&world, "x", recipe).await;
    assert_eq!(reason["step"], "base", "{reason}");
    let message = reason["message"].as_str().unwrap();
    assert!(message.contains("its variables are longer"), "{message}");
    assert_eq!(world.node.creates(), 0);
}
