//! What is no request of ours: wrong types, wrong paths, wrong sizes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::body::Bytes;
use futures_util::stream;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_types_are_400_and_name_the_place() {
    let world = World::new().await;
    let check = async |body: &str, place: &str| {
        let answer = world.api("POST", "/v2/sandboxes").json(body).send().await;
        let message = answer.error(400);
        assert!(message.starts_with("validation error: "), "{message}");
        assert!(message.contains(place), "{message}");
        assert!(!message.contains('\n'), "{message}");
    };
    check("", "missing").await;
    check("{}", "templateID").await;
    check(r#"["base",5]"#, "value must be an object").await;
    check(
        r#"{"templateID":"base","timeout":"5"}"#,
        "expected a 32-bit integer",
    )
    .await;
    check(r#"{"templateID":null}"#, "/templateID").await;
    check(r#"{"templateID":"base","timeout":-1}"#, "/timeout").await;
    check(r#"{"templateID":"base","timeout":"5"}"#, "/timeout").await;
    check(r#"{"templateID":"base","timeout":99999999999}"#, "/timeout").await;
    check(r#"{"templateID":"base","metadata":{"a":1}}"#, "/metadata/a").await;
    check(
        r#"{"templateID":"base","network":{"denyOut":"x"}}"#,
        "/network/denyOut",
    )
    .await;
    let call = world.api("POST", "/v2/sandboxes").json("{");
    assert!(
        call.send()
            .await
            .error(400)
            .starts_with("Error when parsing request: ")
    );
    assert_eq!(world.node.creates(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_length_or_content_type_are_read() {
    let world = World::new().await;
    let pieces = [r#"{"templ"#, r#"ateID":"#, r#""base"}"#];
    let pieces = stream::iter(pieces.map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece))));
    let call = world
        .api("POST", "/v2/sandboxes")
        .body(Body::from_stream(pieces));
    assert_eq!(call.send().await.status, 201);
    let call = world
        .api("POST", "/v2/sandboxes")
        .header("content-type", "text/plain");
    assert_eq!(
        call.json(r#"{"templateID":"base"}"#).send().await.status,
        201
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_is_400() {
    let world = World::new().await;
    let pieces: [Result<Bytes, std::io::Error>; 2] = [
        Ok(Bytes::from(r#"{"templateID":"#)),
        Err(std::io::Error::other("reset")),
    ];
    let call = world
        .api("POST", "/v2/sandboxes")
        .body(Body::from_stream(stream::iter(pieces)));
    call.send().await.error(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_body_is_413_before_it_was_read() {
    let world = World::new().await;
    let mib = Bytes::from(vec![b' '; 1024 * 1024]);
    let endless = |read: Arc<AtomicUsize>| {
        let mib = mib.clone();
        let pieces = std::iter::repeat_with(move || {
            read.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(mib.clone())
        });
        Body::from_stream(stream::iter(pieces.take(100)))
    };
    let read = Arc::new(AtomicUsize::new(0));
    let call = world
        .api("POST", "/v2/sandboxes")
        .header("content-length", "104857600")
        .body(endless(Arc::clone(&read)));
    call.send().await.error(413);
    assert_eq!(read.load(Ordering::Relaxed), 0);
    let call = world
        .api("POST", "/v2/sandboxes")
        .body(endless(Arc::clone(&read)));
    call.send().await.error(413);
    assert!(read.load(Ordering::Relaxed) <= 18);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_path_and_method_has_a_json_error() {
    let world = World::new().await;
    for path in [
        "/",
        "/nope",
        "/v1/sandboxes",
        "/sandboxes/",
        "//sandboxes",
        "/secrets/a/b",
    ] {
        world.api("GET", path).send().await.error(404);
    }
    world.api("PATCH", "/sandboxes").send().await.error(405);
    world.api("PUT", "/health").send().await.error(405);
    for path in ["/instances", "/instances/x/y", "/envs", "/envs/1"] {
        let message = world.api("POST", path).send().await.error(400);
        assert!(message.starts_with("validation error: "), "{message}");
        assert!(
            message.contains("deprecated") && message.contains("SDK"),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sandbox_ids_are_checked_and_cut() {
    let world = World::new().await;
    let sandbox = world.create("").await;
    let path = format!("/sandboxes/{sandbox}-6532622b");
    assert_eq!(world.api("GET", &path).send().await.status, 200);
    for wrong in [
        "iABC",
        "i-a-b",
        "i_a",
        "..%2f..%2fetc",
        "%00",
        "%ff",
        "i%20a",
    ] {
        let answer = world
            .api("GET", &format!("/sandboxes/{wrong}"))
            .send()
            .await;
        answer.error(400);
    }
    let long = format!("/sandboxes/{}", "a".repeat(10_000));
    assert_eq!(
        world.api("GET", &long).send().await.error(400),
        "Invalid sandbox ID"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_may_call_from_anywhere() {
    let world = World::new().await;
    let preflight = world
        .call("OPTIONS", "/v2/sandboxes")
        .header("origin", "https://app.example.com")
        .header("access-control-request-method", "POST")
        .send()
        .await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert_eq!(preflight.header("access-control-max-age"), Some("43200"));
    let allowed = preflight.header("access-control-allow-headers").unwrap();
    assert!(allowed.contains("X-API-Key") && allowed.contains("sdk_runtime"));
    let answer = world
        .api("GET", "/v2/sandboxes")
        .header("origin", "https://x")
        .send()
        .await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let exposed = answer.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("X-Next-Token") && exposed.contains("X-Total-Running"));
    let refused = world
        .call("GET", "/v2/sandboxes")
        .header("origin", "https://x")
        .send()
        .await;
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
    let plain = world.api("GET", "/v2/sandboxes").send().await;
    assert_eq!(plain.header("access-control-allow-origin"), None);
}
