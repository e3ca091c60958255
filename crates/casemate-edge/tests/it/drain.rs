//! Letting go without breaking anything, and breaking what does not let go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use casemate_edge::Drained;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::{ENVD, LONG, Stage, eventually, get, text};

async fn waiting_service(stage: &Stage) -> (Arc<Notify>, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let go = Arc::new(Notify::new());
    let (here, arrived) = tokio::sync::mpsc::unbounded_channel();
    let wait = go.clone();
    let router = Router::new().fallback(move || {
        here.send(()).unwrap();
        let wait = wait.clone();
        async move {
            wait.notified().await;
            "done"
        }
    });
    stage.service(ENVD, router).await;
    (go, arrived)
}

#[tokio::test]
async fn open_requests_end_and_idle_connections_close() {
    let stage = Stage::new().await;
    let (go, mut arrived) = waiting_service(&stage).await;
    let mut client = stage.http1().await;
    let request = tokio::spawn(async move { client.send_request(get(ENVD, "/")).await });
    arrived.recv().await.unwrap();
    let mut idle = stage.http1().await;
    let mut warm = get(1, "/");
    warm.headers_mut()
        .insert("host", "localhost".parse().unwrap());
    text(idle.send_request(warm).await.unwrap()).await;

    stage.shutdown.cancel();
    eventually("the idle connection is closed", || idle.is_closed()).await;
    assert!(
        TcpStream::connect(stage.addr).await.is_err(),
        "the listener is gone"
    );
    assert!(!stage.serving.is_finished());
    go.notify_one();
    assert_eq!(text(request.await.unwrap().unwrap()).await, "done");
    let drained = tokio::time::timeout(LONG, stage.serving)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(drained, Drained::Whole);
}

#[tokio::test]
async fn what_is_open_at_the_deadline_is_cut() {
    let stage = Stage::with(|config| {
        config.limits.drain_timeout = Duration::from_millis(200);
    })
    .await;
    let (_go, mut arrived) = waiting_service(&stage).await;
    let mut client = stage.http1().await;
    let request = tokio::spawn(async move { client.send_request(get(ENVD, "/")).await });
    arrived.recv().await.unwrap();
    let begun = Instant::now();
    stage.shutdown.cancel();
    let drained = tokio::time::timeout(LONG, stage.serving)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(drained, Drained::Cut(1));
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert!(request.await.unwrap().is_err());
}
