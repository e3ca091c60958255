//! The memory adapter.

use std::sync::Arc;

use casemate_catalog::routes::REMOVAL_REMEMBERED;
use casemate_catalog::{Catalog, MemoryCatalog, Route};
use casemate_types::{Ingress, SandboxId};

async fn open() -> Option<Box<MemoryCatalog>> {
    Some(Box::default())
}

casemate_catalog::catalog_conformance!(open);

/// A rebuild is one step: whoever looks while it goes on sees the old routes or the new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_hides_no_sandbox_that_runs_on() {
    let catalog = Arc::new(MemoryCatalog::new());
    let route = Route {
        node: "n".into(),
        asleep: false,
        ingress: Ingress::default(),
        generation: 1,
        traffic_token: None,
    };
    let runs: Vec<_> = (0..200)
        .map(|_| (SandboxId::random(), route.clone()))
        .collect();
    let (last, _) = &runs[199];
    catalog.route_put(last, route).await.unwrap();
    let rebuild = {
        let (catalog, runs) = (Arc::clone(&catalog), runs.clone());
        tokio::spawn(async move {
            for _ in 0..200 {
                catalog.routes_replace("n", &runs, &[]).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    while !rebuild.is_finished() {
        let found = catalog.route_by_id(last).await.unwrap();
        assert!(found.is_some());
        tokio::task::yield_now().await;
    }
    rebuild.await.unwrap();
}

/// A bounded one forgets what it was told of longest ago, removals first.
#[tokio::test]
async fn a_bounded_catalog_forgets_the_oldest() {
    let catalog = MemoryCatalog::bounded(3);
    let route = Route {
        node: "n".into(),
        asleep: false,
        ingress: Ingress::default(),
        generation: 1,
        traffic_token: None,
    };
    let ids: Vec<SandboxId> = (0..4).map(|_| SandboxId::random()).collect();
    for id in &ids[..3] {
        catalog.route_put(id, route.clone()).await.unwrap();
    }
    catalog.route_remove(&ids[1], "n", 1).await.unwrap();
    // Told of again, it is the youngest.
    catalog.route_put(&ids[0], route.clone()).await.unwrap();
    catalog.route_put(&ids[3], route.clone()).await.unwrap();
    let is_known = async |id| catalog.route_by_id(id).await.unwrap().is_some();
    assert!(is_known(&ids[0]).await && is_known(&ids[2]).await && is_known(&ids[3]).await);
    catalog.route_put(&ids[1], route).await.unwrap();
    assert!(is_known(&ids[0]).await && !is_known(&ids[2]).await && is_known(&ids[3]).await);
}

/// Removals are forgotten in time, and with them what they kept out.
#[tokio::test(start_paused = true)]
async fn a_removal_is_not_remembered_for_ever() {
    let catalog = MemoryCatalog::new();
    let route = Route {
        node: "n".into(),
        asleep: false,
        ingress: Ingress::default(),
        generation: 1,
        traffic_token: None,
    };
    let (old, other) = (SandboxId::random(), SandboxId::random());
    catalog.route_remove(&old, "n", 2).await.unwrap();
    assert!(!catalog.route_put(&old, route.clone()).await.unwrap());
    tokio::time::advance(REMOVAL_REMEMBERED).await;
    catalog.route_put(&other, route.clone()).await.unwrap();
    assert!(catalog.route_put(&old, route).await.unwrap());
}
