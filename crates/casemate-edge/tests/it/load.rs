//! Many at once.

use axum::Router;
use axum::extract::Path;
use axum::routing::get as on_get;

use crate::support::{ENVD, Stage, eventually, get, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_at_once_each_get_their_own_answer() {
    let stage = Stage::new().await;
    let router = Router::new().route(
        "/{n}",
        on_get(|Path(n): Path<u32>| async move { n.to_string() }),
    );
    stage.service(ENVD, router.clone()).await;
    stage.service(3000, router).await;
    let requests = (0..1000).map(|n| {
        let port = if n % 2 == 0 { ENVD } else { 3000 };
        let stage = &stage;
        async move {
            let mut client = stage.http1().await;
            let response = client
                .send_request(get(port, &format!("/{n}")))
                .await
                .unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(text(response).await, n.to_string());
        }
    });
    futures_util::future::join_all(requests).await;
    eventually("only kept connections are held", || {
        stage.serving_connections() == 0
    })
    .await;
    let (sandboxes, idle) = stage.edge.held();
    assert!(sandboxes == 1 && idle <= 16, "{sandboxes} {idle}");
}
