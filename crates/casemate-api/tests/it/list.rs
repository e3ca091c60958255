//! Lists: filters, order, pages.

use casemate_store::Standing;
use serde_json::Value;

use crate::world::{Answer, World};

fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let id = |row: &Value| row["sandboxID"].as_str().unwrap().to_owned();
    answer.json().as_array().unwrap().iter().map(id).collect()
}

async fn get(world: &World, query: &str) -> Answer {
    world
        .api("GET", &format!("/v2/sandboxes?{query}"))
        .send()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_through_everything_in_both_orders() {
    let world = World::new().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(world.create("").await.to_string());
    }
    for (order, expected) in [
        ("asc", made.clone()),
        ("desc", made.iter().rev().cloned().collect()),
    ] {
        let mut found = Vec::new();
        let mut token = String::new();
        loop {
            let answer = get(&world, &format!("limit=2&order={order}&nextToken={token}")).await;
            assert_eq!(answer.header("x-total-running"), Some("5"));
            found.extend(ids(&answer));
            match answer.header("x-next-token") {
                Some(next) => token = next.replace('=', "%3D"),
                None => break,
            }
            assert!(found.len() < 6);
        }
        assert_eq!(found, expected, "{order}");
    }
    let all = get(&world, "").await;
    assert_eq!(all.header("x-next-token"), None);
    assert_eq!(get(&world, "limit=5").await.header("x-next-token"), None);
    let v1 = world.api("GET", "/sandboxes").send().await;
    assert_eq!(ids(&v1), ids(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_another_order_or_team_are_refused() {
    let world = World::new().await;
    for _ in 0..2 {
        world.create("").await;
    }
    let token = get(&world, "limit=1").await;
    let token = token.header("x-next-token").unwrap().replace('=', "%3D");
    let other = get(&world, &format!("order=asc&nextToken={token}")).await;
    assert_eq!(other.error(400), "Invalid next token");
    assert_eq!(
        get(&world, "nextToken=abc").await.error(400),
        "Invalid next token"
    );
    let (_, key) = world.other_team(Standing::Good).await;
    let path = format!("/v2/sandboxes?nextToken={token}");
    let foreign = world
        .call("GET", &path)
        .header("x-api-key", &key)
        .send()
        .await;
    assert_eq!(foreign.error(400), "Invalid next token");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_match_as_specified() {
    let world = World::new().await;
    let a = world
        .create(r#","metadata":{"user id":"a b&c","x":"1"}"#)
        .await
        .to_string();
    let b = world.create(r#","metadata":{"x":"1"}"#).await.to_string();
    let check = async |query: &str, expected: &[&String]| {
        let found = ids(&get(&world, query).await);
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query}");
    };
    check("metadata=x%3D1", &[&b, &a]).await;
    check("metadata=user%252520id%3Da%252520b%252526c", &[&a]).await;
    check("metadata=x%3D1%26user%252520id%3Da%252520b%252526c", &[&a]).await;
    check("metadata=x%3D2", &[]).await;
    check("metadata=y%3D1", &[]).await;
    check("template=base", &[&b, &a]).await;
    check(&format!("template={}", world.node.template()), &[&b, &a]).await;
    check("template=nope", &[]).await;
    check("state=running,paused", &[&b, &a]).await;
    check("state=running%2Cpaused", &[&b, &a]).await;
    check("state=paused", &[]).await;
    let paused = get(&world, "state=paused").await;
    assert_eq!(paused.header("x-total-running"), None);
    let rows = get(&world, "").await.json();
    let started = rows[0]["startedAt"].as_str().unwrap();
    check(&format!("startedAfter={started}"), &[&b]).await;
    check("startedAfter=2099-01-01T00:00:00Z", &[]).await;
    check("startedAfter=2001-01-01T00:00:00%2B02:00", &[&b, &a]).await;
    let v1 = world.api("GET", "/sandboxes?metadata=x%3D1").send().await;
    assert_eq!(ids(&v1), [b, a]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_queries_are_400() {
    let world = World::new().await;
    for (query, message) in [
        ("limit=0", "validation error: parameter \"limit\""),
        ("limit=-1", "validation error: parameter \"limit\""),
        ("limit=101", "number must be at most 100"),
        ("limit=x", "validation error: parameter \"limit\""),
        ("limit=99999999999", "validation error: parameter \"limit\""),
        ("state=dead", "validation error: parameter \"state\""),
        ("state=", "validation error: parameter \"state\""),
        ("order=up", "validation error: parameter \"order\""),
        (
            "startedAfter=yesterday",
            "validation error: parameter \"startedAfter\"",
        ),
        ("metadata=", "Error parsing metadata"),
        ("metadata=a", "Error parsing metadata"),
        ("metadata=a%3Db%3Dc", "Error parsing metadata"),
        (
            "template=base:v1",
            "Invalid template: tags are not supported here",
        ),
        ("template=a/b/c", "Invalid template: "),
    ] {
        let found = get(&world, query).await.error(400);
        assert!(found.contains(message), "{query}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_have_every_field() {
    let world = World::new().await;
    world.create("").await;
    let rows = get(&world, "").await.json();
    let row = rows[0].as_object().unwrap();
    for field in [
        "templateID",
        "sandboxID",
        "clientID",
        "startedAt",
        "endAt",
        "cpuCount",
        "memoryMB",
        "diskSizeMB",
        "state",
        "envdVersion",
        "alias",
        "volumeMounts",
    ] {
        assert!(row.contains_key(field), "{field}");
    }
    assert!(!row.contains_key("envdAccessToken"));
}
