//! What is not built says so (decision 12).

use crate::world::{ACCESS_TOKEN, World};

#[tokio::test(flavor = "multi_thread")]
async fn missing_operations_are_501() {
    let world = World::new().await;
    for (method, path) in [
        ("GET", "/volumecontent/x/path"),
        ("PUT", "/volumecontent/x/file"),
    ] {
        let message = world.api(method, path).json("{}").send().await.error(501);
        let end = " is not available in this version of Casemate";
        assert!(
            message.ends_with(end) && message.len() > end.len(),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn features_that_are_off_have_their_own_answers() {
    let world = World::new().await;
    for method in ["GET", "POST"] {
        let message = world.api(method, "/volumes").send().await.error(403);
        assert_eq!(message, "use of volumes is not enabled");
        let secrets = world.api(method, "/secrets").json("{}").send().await;
        assert_eq!(
            secrets.error(403),
            "Secrets are not available for this team"
        );
        assert_eq!(secrets.header("cache-control"), Some("no-store"));
    }
    let stranger = world.call("GET", "/secrets/sec_x").send().await;
    assert_eq!(stranger.error(401), "You are not authenticated");
    assert_eq!(stranger.header("cache-control"), Some("no-store"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_ways_to_build_are_410_and_name_the_new_one() {
    let world = World::new().await;
    let message = world
        .api("POST", "/v2/templates")
        .json("{}")
        .send()
        .await
        .error(410);
    assert!(message.contains("/v3/templates"));
    let token = format!("Bearer {ACCESS_TOKEN}");
    for path in ["/templates", "/templates/x", "/templates/x/builds/y"] {
        let call = world.call("POST", path).header("authorization", &token);
        call.send().await.error(410);
    }
}
