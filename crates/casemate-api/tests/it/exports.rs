//! Templates as archives: who gets one, and what is left of one that nobody wants any more.

use std::time::Duration;

use casemate_store::Standing;
use tokio::time::timeout;

use crate::builds::{ask, ready};
use crate::world::{Answer, World, until};

const BASE: &str = "/templates/base/archive";
/// Nothing that is answered at once takes so long.
const MOMENT: Duration = Duration::from_secs(2);

async fn export(world: &World, path: &str) -> Answer {
    world.api("GET", path).send().await
}

fn files(world: &World) -> usize {
    let dir = world.uploads.path().join(world.team.as_str());
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_templates_that_a_team_may_use_are_exported() {
    let world = World::new().await;
    let own = ready(&world, r#"{"name":"own"}"#).await;
    let (_, key) = world.other_team(Standing::Good).await;
    for name in ["own", "first%2Fown", own.template.as_str()] {
        let path = format!("/templates/{name}/archive");
        let theirs = world.call("GET", &path).header("x-api-key", &key);
        let message = theirs.send().await.error(404);
        assert!(message.ends_with("not found"), "{message}");
    }
    let message = export(&world, "/templates/own:v9/archive").await.error(404);
    assert!(message.starts_with("tag 'v9' does not exist"), "{message}");
    let waiting = ask(&world, r#"{"name":"waiting"}"#).await;
    let path = format!("/templates/{}/archive", waiting.template);
    export(&world, &path).await.error(404);
    export(&world, "/templates/no%20name/archive")
        .await
        .error(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_has_one_at_a_time_and_none_without_a_client() {
    // Builds, and exports among them, get no turn here.
    let world = World::new().await;
    let first = world.api("GET", BASE);
    let first = tokio::spawn(async move { first.send().await.status });
    until("an export is under way", || async { files(&world) == 1 }).await;
    let message = export(&world, BASE).await.error(429);
    assert!(
        message.starts_with("the team has an export under way"),
        "{message}"
    );
    let (_, key) = world.other_team(Standing::Good).await;
    let theirs = world.call("GET", BASE).header("x-api-key", &key).send();
    assert!(
        timeout(MOMENT, theirs).await.is_err(),
        "theirs waits for its turn"
    );
    first.abort();
    until("the place is free", || async {
        timeout(MOMENT, export(&world, BASE)).await.is_err()
    })
    .await;
    until("no file is left", || async { files(&world) == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_ends_with_the_client() {
    let world = World::with(|config| config.builds.at_once = 1).await;
    world.node.hold_creates();
    let call = world.api("GET", BASE);
    let call = tokio::spawn(async move { call.send().await.status });
    until("a sandbox is being made", || async {
        world.node.creates() == 1
    })
    .await;
    until("it has a file", || async { files(&world) == 1 }).await;
    call.abort();
    world.node.release_creates();
    until("it was ended", || async { world.node.kills() == 1 }).await;
    until("nothing is left", || async {
        world.node.running().is_empty() && files(&world) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_does_not_answer_is_an_error_and_is_ended() {
    let world = World::with(|config| config.builds.at_once = 1).await;
    for _ in 0..2 {
        let message = export(&world, BASE).await.error(500);
        assert_eq!(message, "Internal server error");
        assert_eq!((world.node.running().len(), files(&world)), (0, 0));
    }
    let closed = world.node.creates();
    assert_eq!(closed, 2);
}
