//! Requests for a sandbox that is paused.

use std::sync::atomic::Ordering;

use axum::Router;
use axum::http::HeaderMap;
use casemate_edge::{RouteTarget, WakeFailure};

use crate::support::{ENVD, ID, Stage, eventually, get, host, sandbox, text};

fn echo() -> Router {
    Router::new().fallback(|headers: HeaderMap| async move {
        let value = |name: &str| {
            let value = headers
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned());
            value.unwrap_or_default()
        };
        format!("{} {}", value("host"), value("x-forwarded-host"))
    })
}

async fn ask(stage: &Stage, port: u16, token: Option<&str>) -> (u16, String) {
    let mut request = get(port, "/");
    if let Some(token) = token {
        let token = token.parse().unwrap();
        request.headers_mut().insert("x-access-token", token);
    }
    let response = stage.http1().await.send_request(request).await.unwrap();
    (response.status().as_u16(), text(response).await)
}

#[tokio::test]
async fn the_request_that_wakes_is_answered() {
    let stage = Stage::new().await;
    stage.service(3000, echo()).await;
    stage.service(ENVD, echo()).await;
    for (port, token) in [(3000, None), (ENVD, Some("right"))] {
        stage.world.run(ID, RouteTarget::Asleep);
        assert_eq!(ask(&stage, port, token).await.0, 200);
    }
    assert_eq!(stage.world.wakes.load(Ordering::SeqCst), 2);
    assert_eq!(ask(&stage, 3000, None).await.0, 200);
    assert_eq!(stage.world.wakes.load(Ordering::SeqCst), 2, "it runs");
}

#[tokio::test]
async fn why_it_was_not_woken_is_told() {
    let stage = Stage::new().await;
    stage.world.run(ID, RouteTarget::Asleep);
    let denied = "can't be resumed with the credentials provided";
    for token in [None, Some("wrong")] {
        let (status, body) = ask(&stage, ENVD, token).await;
        assert!(status == 403 && body.contains(denied), "{status} {body}");
    }
    let failures = [
        (WakeFailure::NotFound, 502, "was not found"),
        (
            WakeFailure::TeamLimit("too <many>".into()),
            429,
            "too <many>",
        ),
        (WakeFailure::Transitioning, 409, "still transitioning"),
        (
            WakeFailure::Failed("a secret".into()),
            503,
            "could not be woken",
        ),
    ];
    for (failure, status, words) in failures {
        *stage.world.wake_failure.lock().unwrap() = Some(failure);
        let (found, body) = ask(&stage, 3000, None).await;
        assert!(found == status && body.contains(words), "{found} {body}");
        assert!(!body.contains("a secret"));
    }
}

#[tokio::test]
async fn a_request_that_waits_outlasts_the_pause() {
    let stage = Stage::new().await;
    stage.service(3000, echo()).await;
    stage.world.run(ID, RouteTarget::Asleep);
    let gate = stage.world.gate.lock().await;
    let mut client = stage.http1().await;
    let asked = tokio::spawn(async move { client.send_request(get(3000, "/")).await });
    eventually("it knocks", || {
        stage.world.wakes.load(Ordering::SeqCst) == 1
    })
    .await;
    // What is told at the end of a pause.
    stage.edge.forget(&sandbox());
    drop(gate);
    let response = asked.await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn services_see_the_mask_and_envd_does_not() {
    let stage = Stage::new().await;
    stage.service(3000, echo()).await;
    stage.service(ENVD, echo()).await;
    let masked = RouteTarget::Running {
        traffic_token: None,
        mask_host: Some("localhost:${PORT}".into()),
        https_ports: Vec::new(),
    };
    stage.world.run(ID, masked);
    let seen = format!("localhost:3000 {}", host(3000));
    assert_eq!(ask(&stage, 3000, None).await, (200, seen));
    assert_eq!(
        ask(&stage, ENVD, None).await,
        (200, format!("{} ", host(ENVD)))
    );
}

#[tokio::test]
async fn a_request_that_meets_a_pause_that_is_not_known_yet_wakes_it() {
    let stage = Stage::new().await;
    stage.service(3000, echo()).await;
    *stage.world.paused.lock().unwrap() = true;
    let mut client = stage.http1().await;
    let mut request = get(3000, "/");
    request.headers_mut().insert("x-mine", "1".parse().unwrap());
    let asked = tokio::spawn(async move { client.send_request(request).await });
    eventually("it was dialled", || stage.world.dials() > 0).await;
    // The news of the pause.
    stage.world.run(ID, RouteTarget::Asleep);
    *stage.world.paused.lock().unwrap() = false;
    stage.edge.forget(&sandbox());
    let response = asked.await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await, format!("{} ", host(3000)));
    assert_eq!(stage.world.wakes.load(Ordering::SeqCst), 1);
}
