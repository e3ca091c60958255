//! Connections to envd are kept, those to users' ports never, and nothing is sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use casemate_edge::RouteTarget;
use tokio::io::AsyncWriteExt;

use crate::support::{ENVD, ID, Stage, World, eventually, get, read_until, text};

fn ok() -> Router {
    Router::new().fallback(|| async { "ok" })
}

async fn ask(stage: &Stage, port: u16) -> u16 {
    let response = stage
        .http1()
        .await
        .send_request(get(port, "/"))
        .await
        .unwrap();
    let status = response.status().as_u16();
    text(response).await;
    status
}

#[tokio::test]
async fn envd_is_dialled_once_and_a_users_port_each_time() {
    let stage = Stage::new().await;
    stage.service(ENVD, ok()).await;
    stage.service(3000, ok()).await;
    for _ in 0..5 {
        assert_eq!(ask(&stage, ENVD).await, 200);
        eventually("the connection is kept", || stage.edge.held() == (1, 1)).await;
    }
    assert_eq!(stage.world.dials(), 1);
    for _ in 0..5 {
        assert_eq!(ask(&stage, 3000).await, 200);
    }
    assert_eq!(stage.world.dials(), 6);
    assert_eq!(stage.edge.held(), (1, 1));
}

#[tokio::test]
async fn a_new_sandbox_is_dialled_ahead_of_its_first_request() {
    let stage = Stage::with(|config| {
        config.limits.sandbox_requests_max = std::num::NonZeroU32::new(1);
    })
    .await;
    stage.service(ENVD, ok()).await;
    let sandbox = ID.parse().unwrap();
    stage.edge.warm(&sandbox);
    eventually("a connection is kept", || stage.edge.held() == (1, 1)).await;
    for _ in 0..2 {
        assert_eq!(ask(&stage, ENVD).await, 200);
        eventually("the connection is kept", || stage.edge.held() == (1, 1)).await;
    }
    assert_eq!(stage.world.dials(), 1);
    stage.edge.forget(&sandbox);
    assert_eq!(stage.edge.held(), (0, 0));
}

#[tokio::test]
async fn a_request_waits_for_the_dial_that_is_under_way() {
    let stage = Stage::new().await;
    stage.service(ENVD, ok()).await;
    let held = stage.world.gate.lock().await;
    stage.edge.warm(&ID.parse().unwrap());
    eventually("the edge dials", || stage.world.dials() == 1).await;
    let asked = async {
        // Time for the request to come as far as it can.
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(held);
    };
    let (status, ()) = tokio::join!(ask(&stage, ENVD), asked);
    assert_eq!((status, stage.world.dials()), (200, 1));
}

#[tokio::test]
async fn a_dial_ahead_that_fails_is_left_to_the_request_that_waits() {
    let stage = Stage::with(|config| {
        config.limits.dial_attempts = 1;
    })
    .await;
    let held = stage.world.gate.lock().await;
    stage.edge.warm(&ID.parse().unwrap());
    eventually("the edge dials", || stage.world.dials() == 1).await;
    let asked = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(held);
    };
    // Nobody listens: its own dial says so.
    let (status, ()) = tokio::join!(ask(&stage, ENVD), asked);
    assert_eq!((status, stage.world.dials()), (502, 2));
}

#[tokio::test]
async fn kept_connections_have_a_bound_and_an_age() {
    let stage = Stage::with(|config| {
        config.limits.envd_idle_max = 2;
        config.limits.envd_idle_timeout = Duration::from_millis(50);
    })
    .await;
    let gate = Arc::new(tokio::sync::Barrier::new(5));
    let router = Router::new().fallback(move || {
        let gate = gate.clone();
        async move {
            gate.wait().await;
            "ok"
        }
    });
    stage.service(ENVD, router).await;
    let all = futures_util::future::join_all((0..5).map(|_| ask(&stage, ENVD))).await;
    assert_eq!(all, [200; 5]);
    assert_eq!(stage.world.dials(), 5);
    eventually("two are kept", || stage.edge.held() == (1, 2)).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    // Too old to be used, whether or not the sweep came by.
    let all = futures_util::future::join_all((0..5).map(|_| ask(&stage, ENVD))).await;
    assert_eq!(all, [200; 5]);
    assert_eq!(stage.world.dials(), 10);
}

#[tokio::test]
async fn an_envd_that_started_again_is_dialled_again() {
    let stage = Stage::new().await;
    for round in 1..4 {
        let listener = stage.listener(ENVD).await;
        let envd = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .unwrap();
            // Then it dies: the kept connection is closed.
        });
        assert_eq!(ask(&stage, ENVD).await, 204);
        envd.await.unwrap();
        assert_eq!(stage.world.dials(), round);
    }
}

/// Takes requests, counts them, and closes without an answer from the `answered`-th on.
async fn closes_after(stage: &Stage, port: u16, answered: usize) -> Arc<AtomicUsize> {
    let listener = stage.listener(port).await;
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            loop {
                read_until(&mut stream, "\r\n\r\n").await;
                if count.fetch_add(1, Ordering::SeqCst) >= answered {
                    break;
                }
                stream
                    .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                    .await
                    .unwrap();
            }
        }
    });
    requests
}

#[tokio::test]
async fn a_request_that_was_sent_is_not_sent_again() {
    for port in [ENVD, 3000] {
        let stage = Stage::new().await;
        let requests = closes_after(&stage, port, 0).await;
        assert_eq!(ask(&stage, port).await, 502);
        assert_eq!(requests.load(Ordering::SeqCst), 1);
        assert_eq!(stage.world.dials(), 1);
    }
    // Also over a kept connection.
    let stage = Stage::new().await;
    let requests = closes_after(&stage, ENVD, 1).await;
    assert_eq!(ask(&stage, ENVD).await, 204);
    eventually("the connection is kept", || stage.edge.held() == (1, 1)).await;
    assert_eq!(ask(&stage, ENVD).await, 502);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    assert_eq!(stage.world.dials(), 1);
}

#[tokio::test]
async fn closed_ports_are_dialled_as_often_as_set() {
    let stage = Stage::new().await;
    assert_eq!(ask(&stage, 3000).await, 502);
    assert_eq!(stage.world.dials(), 1);

    let stage = Stage::with(|config| config.limits.dial_attempts = 3).await;
    assert_eq!(ask(&stage, 3000).await, 502);
    assert_eq!(stage.world.dials(), 3);
    // A port that opens in between is reached.
    let world: Arc<World> = stage.world.clone();
    let late = tokio::spawn(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        eventually("a first dial", || world.dials() >= 4).await;
        world.open(ID, 3001, listener.local_addr().unwrap());
        axum::serve(listener, ok()).await
    });
    assert_eq!(ask(&stage, 3001).await, 200);
    late.abort();
}

#[tokio::test]
async fn a_sandbox_that_is_gone_leaves_nothing() {
    let stage = Stage::new().await;
    for i in 0..50 {
        let id = format!("i{i}");
        stage.world.run(&id, RouteTarget::RUNNING);
        let mut request = get(3000, "/");
        let host = format!("3000-{id}.x");
        request.headers_mut().insert("host", host.parse().unwrap());
        let response = stage.http1().await.send_request(request).await.unwrap();
        assert_eq!(response.status(), 502);
    }
    eventually("nothing is held", || stage.edge.held() == (0, 0)).await;
}
