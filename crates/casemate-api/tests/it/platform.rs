//! Health, readiness, metrics, nodes, the document.

use std::sync::Arc;

use casemate_api::{ApiState, MetricsAccess, router};
use casemate_control::testing::FakeNode;

use crate::world::{ADMIN, SCRAPE, World, guarded, until};

#[tokio::test(flavor = "multi_thread")]
async fn readiness_says_what_is_missing() {
    let node = FakeNode::new();
    node.disconnect();
    let world = World::without_node(|_| {}, node).await;
    let answer = world.call("GET", "/ready").send().await;
    assert_eq!(answer.status, 503);
    let body = answer.json();
    assert_eq!(body["ready"], false);
    assert_eq!(
        body["missing"],
        serde_json::json!(["node", "base_template"])
    );
    let health = world.call("GET", "/health").send().await;
    assert_eq!(
        (health.status.as_u16(), &*health.text),
        (503, "Service is unavailable")
    );
    world.try_create("").await.error(404);
    world.node.reconnect();
    world.ready().await;
    let health = world.call("GET", "/health").send().await;
    assert_eq!(
        (health.status.as_u16(), &*health.text),
        (200, "ok: Health check successful")
    );
    world.create("").await;
    world.node.disconnect();
    until("not ready without its node", || async {
        world.call("GET", "/ready").send().await.status == 503
    })
    .await;
    world
        .try_create("")
        .await
        .error_code(503, "sandbox_capacity_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_guides_names() {
    let world = World::new().await;
    world.create("").await;
    let call = world.call("GET", "/metrics");
    let answer = call
        .header("authorization", &format!("Bearer {SCRAPE}"))
        .send()
        .await;
    assert_eq!(answer.status, 200);
    for line in [
        "e2b_active_sandboxes_total 1",
        "e2b_sandbox_queue_length 0",
        "http_requests_total{method=\"POST\",status=\"201\"} 1",
        "http_request_duration_seconds_bucket{le=\"60.0\"}",
        "casemate_nodes_connected 1",
    ] {
        assert!(answer.text.contains(line), "{line}: {}", answer.text);
    }
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_those_who_may() {
    let world = World::new().await;
    let with = |access: MetricsAccess| {
        let router = router(ApiState::new(Arc::clone(&world.control), access));
        move || {
            let mut call = world_call(&router);
            call = call.from("127.0.0.1:4711");
            call
        }
    };
    let open = with(guarded(true));
    assert_eq!(open().send().await.status, 200);
    assert_eq!(open().from("[::1]:1").send().await.status, 200);
    assert_eq!(open().from("[::ffff:127.0.0.1]:1").send().await.status, 200);
    open().from("192.0.2.1:1").send().await.error(401);
    for header in ["forwarded", "x-forwarded-for", "x-forwarded-proto", "via"] {
        open().header(header, "x").send().await.error(401);
    }
    let closed = with(guarded(false));
    closed().send().await.error(401);
    closed()
        .header("authorization", "Bearer wrong")
        .send()
        .await
        .error(401);
    let scrape = format!("Bearer {SCRAPE}");
    assert_eq!(
        closed()
            .header("authorization", &scrape)
            .send()
            .await
            .status,
        200
    );
    assert_eq!(
        closed().header("x-admin-token", ADMIN).send().await.status,
        200
    );
    let nobody = MetricsAccess::Guarded {
        scrape_token: None,
        open_on_loopback: false,
    };
    with(nobody)()
        .header("authorization", "Bearer ")
        .send()
        .await
        .error(401);
    let public = with(MetricsAccess::Public);
    assert_eq!(public().from("192.0.2.1:1").send().await.status, 200);
}

fn world_call(router: &axum::Router) -> crate::world::Call {
    crate::world::Call::new(router.clone(), "GET", "/metrics")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_sees_the_nodes() {
    let world = World::new().await;
    world.create("").await;
    let nodes = world.admin("GET", "/nodes").send().await.json();
    assert_eq!(nodes[0]["id"], "fake");
    assert_eq!(nodes[0]["status"], "ready");
    assert_eq!(nodes[0]["createSuccesses"], 1);
    assert_eq!(nodes[0]["metrics"]["cpuCount"], 2);
    assert_eq!(nodes[0]["metrics"]["allocatedCPU"], 4);
    assert_eq!(nodes[0]["metrics"]["cpuPercent"], 25);
    assert_eq!(nodes[0]["metrics"]["disks"][0]["filesystemType"], "ext4");
    assert_eq!(nodes[0]["machineInfo"]["cpuModelName"], "A processor");
    let one = world.admin("GET", "/nodes/fake").send().await.json();
    assert!(one.get("sandboxStartingCount").is_none());
    world.admin("GET", "/nodes/nope").send().await.error(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_served() {
    let world = World::new().await;
    let document = world.call("GET", "/openapi.json").send().await.json();
    let create = &document["paths"]["/v2/sandboxes"]["post"];
    assert_eq!(create["security"][0], serde_json::json!({"ApiKeyAuth": []}));
    assert!(document["paths"].get("/volumes").is_none());
    let listed = &document["components"]["schemas"]["ListedSandbox"]["required"];
    for field in [
        "templateID",
        "sandboxID",
        "clientID",
        "startedAt",
        "endAt",
        "state",
    ] {
        assert!(
            listed.as_array().unwrap().contains(&field.into()),
            "{field}"
        );
    }
}
